package initramfs

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/pxectl/pxectl/agent-ramdisk/modules"
)

// module makes an ELF file with just a .modinfo section.
func module(t *testing.T, fields ...string) []byte {
	t.Helper()
	info := []byte(strings.Join(fields, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const header, section = 64, 64
	b := new(bytes.Buffer)
	put := func(v any) {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: header + uint64(len(info)+len(names)), Ehsize: header, Shentsize: section, Shnum: 3,
		Shstrndx: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	put(h)
	b.Write(info)
	b.Write(names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))})
	put(elf.Section64{
		Name: 10, Type: uint32(elf.SHT_STRTAB), Off: header + uint64(len(info)), Size: uint64(len(names)),
	})
	return b.Bytes()
}

// bzImage makes the start of an x86 kernel.
func bzImage(version string) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	copy(b[0x300:], version+" (debian-kernel@lists.debian.org) #1 SMP\x00")
	return b
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// kernel makes a small kernel package with modules of the given release.
func kernel(t *testing.T, release string) string {
	t.Helper()
	dir := t.TempDir()
	magic := "vermagic=" + release + " SMP preempt mod_unload modversions "
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		"drivers/net/virtio_net.ko": module(t, "name=virtio_net", magic,
			"alias=virtio:d00000001v*", "depends=net_failover"),
		"net/core/net_failover.ko": module(t, "name=net_failover", magic),
		"drivers/virtio/virtio_pci.ko": module(t, "name=virtio_pci", magic,
			"alias=pci:v00001AF4d*"),
		"drivers/net/ethernet/broadcom/tg3.ko.zst": enc.EncodeAll(module(t, "name=tg3", magic,
			"firmware=tigon/tg3.bin", "firmware=tigon/no.bin", "softdep=pre: crypto-crc32c"), nil),
		"arch/x86/crypto/crc32c-intel.ko": module(t, "name=crc32c_intel", magic, "alias=crypto-crc32c"),
		"drivers/net/ethernet/sfc/sfc.ko": module(t, "name=sfc", magic),
		"sound/snd.ko":                    module(t, "name=snd", magic),
	} {
		write(t, filepath.Join(dir, "kernel", path), data)
	}
	return dir
}

func TestModuleArchive(t *testing.T) {
	firmware := t.TempDir()
	write(t, filepath.Join(firmware, "tigon/tg3.bin"), []byte("blob"))
	m := &Manifest{Kernel: "6.1.0-56-amd64"}
	archive, err := moduleArchive(context.Background(),
		Options{Modules: kernel(t, "6.1.0-56-amd64"), Firmware: firmware, Extra: []string{"sfc"}}, m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"tigon/no.bin"}, m.Missing); diff != "" {
		t.Errorf("missing firmware (-want +got):\n%s", diff)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := dec.DecodeAll(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, r := range records {
		data := new(bytes.Buffer)
		if r.ReaderAt != nil {
			data.Grow(int(r.FileSize))
			buf := make([]byte, r.FileSize)
			if _, err := r.ReadAt(buf, 0); err != nil && r.FileSize > 0 {
				t.Fatal(err)
			}
			data.Write(buf)
		}
		files[r.Name] = data.String()
	}
	if files["lib/firmware/tigon/tg3.bin"] != "blob" {
		t.Error("the firmware is missing")
	}
	if _, ok := files["lib/modules/snd.ko"]; ok {
		t.Error("a sound driver is in the ramdisk")
	}
	var index modules.Index
	if err := json.Unmarshal([]byte(files["lib/modules/index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	unpack, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unpack.Close()
	var got []string
	for _, mod := range index.Modules {
		name := mod.Name
		if mod.Early {
			name += " early"
		}
		got = append(got, name)
		// Modules that lead to the boot NIC are ready to load; the others are compressed one by one.
		image := []byte(files["lib/modules/"+mod.File])
		if compressed := strings.HasSuffix(mod.File, modules.Compressed); compressed == mod.Early {
			t.Errorf("%s: compressed = %v, early = %v", mod.File, compressed, mod.Early)
		} else if compressed {
			var err error
			if image, err = unpack.DecodeAll(image, nil); err != nil {
				t.Errorf("%s: %v", mod.File, err)
			}
		}
		if !strings.HasPrefix(string(image), "\x7fELF") {
			t.Errorf("%s: not there or no module", mod.File)
		}
	}
	want := []string{
		"crc32c_intel", "tg3 early", "sfc early", "virtio_net early", "virtio_pci early", "net_failover",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

func TestModuleArchiveRefuses(t *testing.T) {
	modules := kernel(t, "6.1.0-56-amd64")
	for _, tt := range []struct {
		name, want string
		o          Options
	}{
		{
			"other release", "the kernel is 6.1.0-56-amd64 and the modules in",
			Options{Modules: kernel(t, "6.1.0-55-amd64")},
		},
		{"no modules", "modules: no lib/modules/VERSION folder in /", Options{Modules: t.TempDir()}},
		{"the folder above", filepath.Base(modules) + " is one", Options{Modules: filepath.Dir(modules)}},
		{
			"unknown module", "module nosuch: not among the 7 modules",
			Options{Modules: kernel(t, "6.1.0-56-amd64"), Extra: []string{"nosuch"}},
		},
		{
			"no firmware folder", "firmware",
			Options{Modules: kernel(t, "6.1.0-56-amd64"), Firmware: "/nonexistent"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := moduleArchive(context.Background(), tt.o, &Manifest{Kernel: "6.1.0-56-amd64"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("moduleArchive = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestBuildWithoutBase(t *testing.T) {
	_, err := Build(context.Background(), Options{Kernel: "k", Arch: "riscv64", Out: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), `"riscv64" (have: amd64, arm64)`) {
		t.Errorf("Build for riscv64 = %v, want the architectures that there are", err)
	}
	if _, err := fs.Stat(bases, "base/arm64.cpio.zst"); err == nil {
		return
	}
	_, err = Build(context.Background(), Options{Kernel: "k", Arch: "arm64", Out: t.TempDir()})
	if !errors.Is(err, ErrNoBase) || !strings.Contains(err.Error(), "`make ramdisk-arm64`") {
		t.Errorf("Build without a base = %v, want %v and how to get one", err, ErrNoBase)
	}
}

// TestBuild needs the built base archive.
func TestBuild(t *testing.T) {
	if _, err := fs.Stat(bases, "base/amd64.cpio.zst"); err != nil {
		t.Skipf("SKIPPED %s: the base archive is not built; run make first", t.Name())
	}
	out := t.TempDir()
	o := Options{
		Kernel:  write(t, filepath.Join(t.TempDir(), "vmlinuz"), bzImage("6.1.0-56-amd64")),
		Modules: kernel(t, "6.1.0-56-amd64"),
		Arch:    "amd64",
		Out:     out,
	}
	m, err := Build(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(out, "amd64/initrd"))
	if err != nil || st.Size() != m.InitrdBytes || m.Kernel != "6.1.0-56-amd64" || m.Modules != 5 {
		t.Errorf("Build = %+v, %v", m, err)
	}
	left, err := os.ReadDir(filepath.Join(out, "amd64"))
	if err != nil || len(left) != 3 {
		t.Errorf("%d files, %v, want vmlinuz, initrd and manifest.json alone", len(left), err)
	}
}

func TestParseKernel(t *testing.T) {
	arm := make([]byte, 64, 256)
	copy(arm[0x38:], "ARM\x64")
	for _, tt := range []struct {
		name, want string
		data       []byte
		bad        bool
	}{
		{"x86", "6.1.0-56-amd64", bzImage("6.1.0-56-amd64"), false},
		{
			"arm64", "6.1.0-50-cloud-arm64",
			append(arm, "Linux version %s\x00Linux version 6.1.0-50-cloud-arm64 (gcc"...), false,
		},
		{"compressed", "", []byte("MZ\x00\x00zimg"), false},
		{"text", "", []byte("hello"), true},
		{"nothing", "", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parseKernel(tt.data); got != tt.want || (err != nil) != tt.bad {
				t.Errorf("parseKernel = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func FuzzParseKernel(f *testing.F) {
	f.Add(bzImage("6.1.0-56-amd64"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseKernel(data) })
}

// A ramdisk is often built before the appliance runs for the first time. Build then makes data_dir with the
// same mode as the appliance.
func TestDataDirIsClosed(t *testing.T) {
	data := filepath.Join(t.TempDir(), "pxectl")
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := install(Options{Kernel: kernel, Arch: "amd64", Out: filepath.Join(data, "ramdisk")},
		&Manifest{}, nil); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(data); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("data_dir is %v, %v, want it closed to others", st.Mode(), err)
	}
}
