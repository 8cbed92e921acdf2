package osimage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/pxectl/pxectl/agent-ramdisk/modules"
)

// miniModules are the modules for disk, NIC and seed. They are found by device, with their dependencies.
var miniModules = []string{
	"virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "nvme", "ahci", "ata_piix", "sd_mod",
	"e1000", "e1000e", "igb", "button", "evdev", "ext4", "crc32c_generic", "crc32c_intel", "vfat",
	"nls_cp437", "nls_ascii", "nls_iso8859_1",
}

// The modules that no device asks for.
var miniByName = []string{
	"sd_mod", "crc32c_generic", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "evdev",
}

// miniTree is a root filesystem with a kernel and an initrd whose init is the whole system. The root
// filesystem keeps what must survive a reboot.
func miniTree(ctx context.Context, kernelPackage, work string, o Options) (rootfs, error) {
	k, err := FetchKernel(ctx, kernelPackage, o)
	if err != nil {
		return rootfs{}, err
	}
	program := filepath.Join(work, "init")
	o.logf("mini: building its init")
	if err := goBuild(ctx, program, "github.com/pxectl/pxectl/lab/osimage/miniinit"); err != nil {
		return rootfs{}, err
	}
	initrd, err := miniInitrd(k, program)
	if err != nil {
		return rootfs{}, err
	}
	image, err := os.ReadFile(k.Image)
	if err != nil {
		return rootfs{}, err
	}
	root := rootfs{dir: filepath.Join(work, "root"), uuid: uuid.NewString(), spare: 4 * mib}
	return root, writeFiles(root.dir, map[string]string{
		"vmlinuz":              string(image),
		"initrd.img":           string(initrd),
		"boot/grub/grub.cfg":   grubConfig(root.uuid),
		"etc/os-release":       "NAME=mini\nID=mini\nPRETTY_NAME=\"pxectl mini\"\n",
		"var/lib/cloud/README": "What must survive a reboot: the instance that was set up, as cloud-init keeps it.\n",
	})
}

func goBuild(ctx context.Context, out, pkg string) error {
	_, err := run(ctx, "", "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "go", "build", "-trimpath",
		"-ldflags=-s -w", "-o", out, pkg)
	return err
}

func miniInitrd(k Kernel, program string) ([]byte, error) {
	bin, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), // without it, init has no terminal
		cpio.StaticFile("init", string(bin), 0o755),
	}
	mods, err := moduleRecords(k)
	if err != nil {
		return nil, err
	}
	records = append(records, mods...)
	cpio.MakeAllReproducible(records)
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return nil, err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(archive.Bytes(), nil), nil
}

// moduleRecords packs the modules with the index that package modules reads.
func moduleRecords(k Kernel) ([]cpio.Record, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	index := modules.Index{Kernel: k.Release, ByName: miniByName}
	var records []cpio.Record
	seen := map[string]bool{}
	for queue := slices.Clone(miniModules); len(queue) > 0; queue = queue[1:] {
		file, ok := files[queue[0]]
		if !ok || seen[queue[0]] {
			continue // built in, or not of this kernel
		}
		seen[queue[0]] = true
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		info, err := modules.ReadInfo(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		queue = append(queue, info.Depends...)
		name := filepath.Base(file)
		index.Modules = append(index.Modules, modules.Module{
			Name: queue[0], File: name, Aliases: info.Aliases, Depends: info.Depends, Soft: info.Soft,
		})
		records = append(records, cpio.StaticFile(modules.Dir+"/"+name, string(data), 0o644))
	}
	text, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	return append(records, cpio.StaticFile(modules.Dir+"/"+modules.IndexFile, string(text), 0o644)), nil
}

// writeFiles writes a tree of files below dir.
func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
