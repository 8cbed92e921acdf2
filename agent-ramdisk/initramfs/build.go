package initramfs

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/pxectl/pxectl/agent-ramdisk/modules"
	"github.com/pxectl/pxectl/internal/atomicfile"
)

//go:embed all:base
var bases embed.FS

// Options describe a ramdisk.
type Options struct {
	Kernel   string   // path of the vmlinuz
	Modules  string   // path of .../lib/modules/VERSION; "" for a kernel that needs no modules
	Firmware string   // path of .../lib/firmware, or ""
	Extra    []string // more modules, by name or by path below kernel/ ("drivers/net/ethernet/sfc/")
	Arch     string   // amd64 or arm64
	Out      string   // OUT/ARCH/vmlinuz, initrd and manifest.json are written
}

// A Manifest describes a built ramdisk.
type Manifest struct {
	Arch        string    `json:"arch"`
	Kernel      string    `json:"kernel"` // release
	KernelBytes int64     `json:"kernel_bytes"`
	InitrdBytes int64     `json:"initrd_bytes"`
	BaseBytes   int64     `json:"base_bytes"`
	Modules     int       `json:"modules"`
	Firmware    []string  `json:"firmware,omitempty"`
	Missing     []string  `json:"missing_firmware,omitempty"` // files that a module may ask for
	BuiltAt     time.Time `json:"built_at"`
}

// ErrNoBase says that pxectl was built without the base archive of an architecture.
var ErrNoBase = errors.New("this pxectl was built without its base")

// Targets are the architectures that there are ramdisks for, and what of make builds pxectl with their base.
var Targets = map[string]string{"amd64": "make", "arm64": "make ramdisk-arm64"}

// Build makes the ramdisk. An earlier one stays until all of the new one is complete.
func Build(ctx context.Context, o Options) (*Manifest, error) {
	if o.Arch == "" || o.Kernel == "" || o.Out == "" {
		return nil, errors.New("ramdisk: kernel, architecture and output folder are needed")
	}
	if Targets[o.Arch] == "" {
		return nil, fmt.Errorf("ramdisk: architecture %q (have: %s)", o.Arch,
			strings.Join(slices.Sorted(maps.Keys(Targets)), ", "))
	}
	base, err := bases.ReadFile("base/" + o.Arch + ".cpio.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ramdisk for %s: %w; build pxectl with `%s`", o.Arch, ErrNoBase,
			Targets[o.Arch])
	}
	if err != nil {
		return nil, err
	}
	version, err := kernelVersion(o.Kernel)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Kernel, err)
	}
	m := &Manifest{Arch: o.Arch, Kernel: version, BaseBytes: int64(len(base)), BuiltAt: time.Now().UTC()}
	initrd := bytes.NewBuffer(base)
	if o.Modules != "" {
		archive, err := moduleArchive(ctx, o, m)
		if err != nil {
			return nil, err
		}
		// The kernel finds a further archive only at a multiple of four. It ignores one that is a byte off,
		// without a message.
		initrd.Write(make([]byte, -initrd.Len()&511))
		initrd.Write(archive)
	}
	m.InitrdBytes = int64(initrd.Len())
	return m, install(o, m, initrd.Bytes())
}

// moduleArchive packs the chosen modules and the index. It compresses those that do not lead to the boot NIC
// one by one: the kernel then unpacks 8 MB instead of 25 MB before it starts the agent, which opens the few
// that the machine needs.
func moduleArchive(ctx context.Context, o Options, m *Manifest) ([]byte, error) {
	all, err := scan(ctx, o.Modules)
	if err != nil {
		return nil, err
	}
	release := all[0].Kernel()
	if m.Kernel != "" && release != m.Kernel {
		return nil, fmt.Errorf("the kernel is %s and the modules in %s are for %s: "+
			"they must be of one package", m.Kernel, o.Modules, release)
	}
	m.Kernel = release
	chosen, err := choose(all, append(append([]string(nil), defaults...), o.Extra...))
	if err != nil {
		return nil, err
	}
	m.Modules = len(chosen)
	index := modules.Index{Kernel: release, ByName: byName}
	var records []cpio.Record
	firmware := map[string]bool{}
	compress, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := readModule(f.file)
		if err != nil {
			return nil, err
		}
		name := f.base()[strings.LastIndexByte(f.base(), '/')+1:] + ".ko"
		if len(data) > bigModule || !isEarly(f) {
			name, data = name+modules.Compressed, compress.EncodeAll(data, nil)
		}
		records = append(records, cpio.StaticFile(modules.Dir+"/"+name, string(data), 0o644))
		index.Modules = append(index.Modules, modules.Module{
			Name: f.Name, File: name, Aliases: f.Aliases, Depends: f.Depends, Soft: f.Soft, Early: isEarly(f),
		})
		for _, blob := range f.Firmware {
			firmware[blob] = true
		}
	}
	packed, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	records = append(records, cpio.StaticFile(modules.Dir+"/"+modules.IndexFile, string(packed), 0o644))
	blobs, err := firmwareRecords(o.Firmware, firmware, m)
	if err != nil {
		return nil, err
	}
	return archive(append(records, blobs...))
}

// bigModule is the size from which a network driver that few machines need is compressed: those machines lose
// less than all others save.
const bigModule = 256 << 10

// scan reads the information of all modules of a kernel.
func scan(ctx context.Context, dir string) ([]found, error) {
	root := filepath.Join(dir, "kernel")
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules: no lib/modules/VERSION folder in %s%s", dir, besides(dir))
	}
	var all []found
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !strings.Contains(d.Name(), ".ko") {
			return ctx.Err()
		}
		rel, _ := filepath.Rel(root, path)
		data, err := readModule(path)
		if err != nil {
			return err
		}
		info, err := modules.ReadInfo(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, found{Info: info, path: filepath.ToSlash(rel), file: path})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf(
			"modules: none in %s (want the folder lib/modules/VERSION of a kernel package)", root)
	}
	return all, nil
}

// besides names the folder that was probably meant: below the one where a package was unpacked.
func besides(dir string) string {
	for _, below := range []string{"*", "modules/*", "lib/modules/*", "usr/lib/modules/*"} {
		if at, err := filepath.Glob(filepath.Join(dir, below, "kernel")); err == nil && len(at) > 0 {
			return "; " + filepath.Dir(at[0]) + " is one"
		}
	}
	return " (there is no kernel/ in it)"
}

// maxModule bounds a module after decompression; the largest of Debian's has 10 MiB.
const maxModule = 128 << 20

// readModule reads a module as it comes from a package: plain, .xz, .zst or .gz.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(f, xz.DefaultDictMax)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	case ".gz":
		r, err = gzip.NewReader(f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxModule)
	}
	return data, nil
}

// firmwareRecords packs the firmware files that the modules name, as far as they exist.
func firmwareRecords(dir string, names map[string]bool, m *Manifest) ([]cpio.Record, error) {
	var records []cpio.Record
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("firmware: %w", err)
	}
	defer root.Close()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data, err := root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			m.Missing = append(m.Missing, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
		m.Firmware = append(m.Firmware, name)
		records = append(records, cpio.StaticFile("lib/firmware/"+name, string(data), 0o644))
	}
	return records, nil
}

func archive(records []cpio.Record) ([]byte, error) {
	cpio.MakeAllReproducible(records)
	var raw bytes.Buffer
	w := cpio.NewDedupWriter(cpio.Newc.Writer(&raw))
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(raw.Bytes(), nil), nil
}

// install puts all three files in place, the manifest last.
func install(o Options, m *Manifest, initrd []byte) error {
	kernel, err := os.ReadFile(o.Kernel)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	m.KernelBytes = int64(len(kernel))
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Join(o.Out, o.Arch)
	if err := os.MkdirAll(dir, 0o750); err != nil { // it may create the appliance's data_dir
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"vmlinuz", kernel}, {"initrd", initrd}, {"manifest.json", append(manifest, '\n')}} {
		if err := atomicfile.Write(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
