package modules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// params are the parameters of modules. With them, a SCSI host scans while its driver loads, and has its
// disks when Coldplug returns; Debian's default is to scan in the background.
var params = map[string]string{"scsi_mod": "scan=sync"}

// A Loader loads modules of an index into the running kernel, each once.
type Loader struct {
	Index *Index
	Dir   string // of the .ko files
	Sys   string // "/sys"

	mu     sync.Mutex
	loaded map[string]error
}

// Open reads the ramdisk's index. A ramdisk without modules has an empty one: its kernel has every driver
// built in.
func Open(root string) (*Loader, error) {
	dir := filepath.Join(root, Dir)
	l := &Loader{Index: new(Index), Dir: dir, Sys: filepath.Join(root, "sys"), loaded: map[string]error{}}
	data, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		l.Index.prepare()
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.Index, err = ParseIndex(data)
	return l, err
}

// Coldplug loads drivers for the present devices, and again for new devices of those drivers, until nothing
// new comes. early restricts it to drivers that lead to the boot NIC. It returns the number of loaded
// modules; err names all that failed.
func (l *Loader) Coldplug(early bool) (loaded int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	// virtio_pci brings virtio buses, an HBA brings disks: no machine had more than three levels.
	for range 4 {
		before := loaded
		for _, alias := range l.modaliases() {
			for _, m := range l.Index.Match(alias) {
				if early && !m.Early {
					continue
				}
				n, err := l.loadLocked(m)
				loaded += n
				errs = append(errs, err)
			}
		}
		if loaded == before {
			break
		}
	}
	return loaded, errors.Join(errs...)
}

// ByName loads the modules that no device asks for.
func (l *Loader) ByName() error {
	return l.Load(l.Index.ByName...)
}

// Load loads modules by name. A module that the ramdisk does not have may be built into the kernel.
func (l *Loader) Load(names ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, name := range names {
		if m, ok := l.Index.Named(name); ok {
			_, err := l.loadLocked(m)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Loader) loadLocked(m *Module) (loaded int, err error) {
	if _, done := l.loaded[m.Name]; done {
		return 0, nil // its error was reported before
	}
	for _, m := range l.Index.Order(m) {
		if _, done := l.loaded[m.Name]; done {
			continue
		}
		e := l.insert(m)
		l.loaded[m.Name] = e
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		loaded++
	}
	return loaded, err
}

func (l *Loader) insert(m *Module) error {
	image, err := readModule(filepath.Join(l.Dir, filepath.FromSlash(m.File)))
	if err != nil {
		return fmt.Errorf("module %s: %w", m.Name, err)
	}
	switch err := unix.InitModule(image, params[m.Name]); {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENODEV):
		return nil // the driver found no such device: the module itself is good
	default:
		return fmt.Errorf("load module %s: %w", m.Name, err)
	}
}

func (l *Loader) modaliases() []string {
	var aliases []string
	seen := map[string]bool{}
	_ = filepath.WalkDir(filepath.Join(l.Sys, "devices"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "modalias" {
			return nil // devices may disappear while we walk
		}
		data, err := os.ReadFile(path)
		if a := strings.TrimSpace(string(data)); err == nil && a != "" && !seen[a] {
			seen[a] = true
			aliases = append(aliases, a)
		}
		return nil
	})
	return aliases
}

// maxModule bounds a compressed module after decompression; the largest driver of Debian's kernel has 4 MB.
const maxModule = 64 << 20

func readModule(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, Compressed) {
		return data, err
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(data, nil)
}
