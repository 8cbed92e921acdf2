package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/internal/efiloader"
	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/inventory"
)

// A loaderFile is a file of a boot loader and its target on the EFI system partition.
type loaderFile struct {
	path string // `\EFI\BOOT\BOOTX64.EFI`
	data []byte
}

// maxLoader bounds a loader; GRUB with everything built in has about 4 MiB.
const maxLoader = 16 << 20

// copyFallback copies an image's boot loader to the place where firmware looks without a boot entry, and
// reads it back from the medium. The kernel writes the filesystem, and our own reader checks it. It closes
// dev: nobody can mount a partition of a disk that is held.
func (a *Agent) copyFallback(dev *disk.Device, esp disk.ESP, done *inventory.Finished) error {
	if err := dev.Close(); err != nil {
		return err
	}
	at := inventory.Range{
		Name:   "EFI system partition",
		Offset: esp.First * uint64(dev.Sector),
		Length: esp.Sectors * uint64(dev.Sector),
	}
	var files []loaderFile
	err := a.onESP(dev.Name, at, func(v *fat.Volume) (err error) {
		files, err = loaderFiles(v, esp.Loader, efiloader.Fallback(runtime.GOARCH))
		return err
	})
	if err != nil {
		return err
	}
	dir, unmount, err := a.MountESP(dev.Name, esp.Number)
	if err != nil {
		return err
	}
	done.Ranges = append(done.Ranges, at)
	err = writeLoader(dir, files)
	if err := errors.Join(err, unmount()); err != nil {
		return err
	}
	if err := a.proveLoader(dev.Name, at, files); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	done.Fallback = fmt.Sprintf("%s, a copy of %s", files[len(files)-1].path, esp.Loader)
	return nil
}

// loaderFiles reads the files to copy, the loader itself last. Shim looks for its second stage and its key
// manager in its own directory, so they come too. Its fallback program (fbx64.efi) does not: it would make
// boot entries of its own and reset the machine.
func loaderFiles(v *fat.Volume, loader, fallback string) ([]loaderFile, error) {
	dir := func(path string) string { return path[:strings.LastIndexByte(path, '\\')+1] }
	from, to := dir(loader), dir(fallback)
	var files []loaderFile
	if arch, ok := strings.CutPrefix(strings.ToLower(loader[len(from):]), "shim"); ok { // "x64.efi"
		for _, name := range []string{"grub" + arch, "mm" + arch} {
			if !v.Has(from+name) || v.Has(to+name) {
				continue
			}
			data, err := v.Read(from+name, maxLoader)
			if err != nil {
				return nil, err
			}
			files = append(files, loaderFile{to + name, data})
		}
	}
	data, err := v.Read(loader, maxLoader)
	return append(files, loaderFile{fallback, data}), err
}

// writeLoader writes the files. The last one, which firmware starts, gets its name when all are written, so
// that no cut loader is ever found. After an error, such as lack of room, it removes what it has made.
func writeLoader(dir string, files []loaderFile) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				_ = os.Remove(path)
			}
		}
	}()
	for i, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(strings.ReplaceAll(f.path, `\`, "/")))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		at := path
		if i == len(files)-1 {
			at = filepath.Join(filepath.Dir(path), "PXECTL.TMP")
		}
		made = append(made, at)
		if err := writeSynced(at, f.data); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if at != path {
			return os.Rename(at, path)
		}
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// proveLoader reads the files back from the medium.
func (a *Agent) proveLoader(name string, at inventory.Range, files []loaderFile) error {
	dev, err := disk.OpenDevice(filepath.Join(a.Dev, name))
	if err != nil {
		return err
	}
	if err := errors.Join(dev.Flush(), dev.Close()); err != nil {
		return err
	}
	return a.onESP(name, at, func(v *fat.Volume) error {
		for _, f := range files {
			data, err := v.Read(f.path, maxLoader)
			if err != nil {
				return err
			}
			if !bytes.Equal(data, f.data) {
				return fmt.Errorf("%s is not what was written", f.path)
			}
		}
		return nil
	})
}

// onESP reads the filesystem at an offset of a disk.
func (a *Agent) onESP(name string, at inventory.Range, look func(*fat.Volume) error) error {
	f, err := os.Open(filepath.Join(a.Dev, name))
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := fat.Open(io.NewSectionReader(f, int64(at.Offset), int64(at.Length)))
	if err != nil {
		return err
	}
	return look(v)
}
