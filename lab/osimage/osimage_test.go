package osimage

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// The namespace of testnet.Main has no network, and apt needs one: the kernel comes from the cache that
// `make` fills, or the test is skipped.
func TestMiniLayout(t *testing.T) {
	testnet.Need(t, "sgdisk", "mke2fs", "mkfs.vfat", "mcopy", "mtype", "grub-mkimage", "fsck.fat", "e2fsck",
		"debugfs")
	cache := os.Getenv("PXECTL_CACHE")
	if cache == "" {
		cache = "../../.cache"
	}
	if found, _ := filepath.Glob(filepath.Join(cache, "kernels", "*", "boot", "vmlinuz-*")); len(found) == 0 {
		t.Skipf("SKIPPED %s: no kernel in %s; `go run ./lab/osimage/mkimage mini` fetches it", t.Name(),
			cache)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	out := filepath.Join(dir, "mini.raw")
	if err := Build(ctx, Mini, out, Options{Cache: cache, Log: t.Output()}); err != nil {
		t.Fatal(err)
	}
	must := func(name string, args ...string) string {
		t.Helper()
		said, err := run(ctx, dir, name, args...)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	if said := must("sgdisk", "--verify", out); !strings.Contains(said, "No problems found") {
		t.Errorf("sgdisk --verify: %s", said)
	}
	table := must("sgdisk", "--print", out)
	for _, want := range []string{
		"2048            4095   1024.0 KiB  EF02  bios",
		"4096           69631   32.0 MiB    EF00  esp", "69632           77823   4.0 MiB     0700  cidata",
		"  77824 ",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("partition table lacks %q:\n%s", want, table)
		}
	}

	disk, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	// fsck has no option for an offset, so each filesystem is checked as a file of its own.
	for _, fs := range []struct {
		name       string
		start, end int64
		check      []string
	}{
		{"esp", espStart, seedStart, []string{"fsck.fat", "-n"}},
		{"cidata", seedStart, rootStart, []string{"fsck.fat", "-n"}},
		{"root", rootStart, 0, []string{"e2fsck", "-f", "-n"}},
	} {
		if fs.end == 0 {
			st, err := disk.Stat()
			if err != nil {
				t.Fatal(err)
			}
			fs.end = st.Size()/sector - mib/sector
		}
		file := filepath.Join(dir, fs.name)
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f,
			io.NewSectionReader(disk, fs.start*sector, (fs.end-fs.start)*sector)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		must(fs.check[0], append(fs.check[1:], file)...)
	}
	if got := must("mtype", "-i", filepath.Join(dir, "cidata"), "::meta-data"); got != unseeded["meta-data"] {
		t.Errorf("meta-data = %q, want %q", got, unseeded["meta-data"])
	}
	must("mtype", "-i", filepath.Join(dir, "esp"), "::EFI/BOOT/BOOTX64.EFI")
	uuid := strings.TrimSpace(must("blkid", "-o", "value", "-s", "UUID", filepath.Join(dir, "root")))
	if got := must("debugfs", "-R", "cat /boot/grub/grub.cfg",
		filepath.Join(dir, "root")); got != grubConfig(uuid) {
		t.Errorf("grub.cfg = %q, want root=UUID=%s", got, uuid)
	}

	head := make([]byte, 4096*sector)
	if _, err := disk.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if got := binary.LittleEndian.Uint64(head[0x5c:]); got != biosStart ||
		!bytes.Contains(head[:440], []byte("GRUB")) {
		t.Errorf("the boot sector loads sector %d, want %d", got, biosStart)
	}
	core := head[biosStart*sector:]
	if got := binary.LittleEndian.Uint64(core[0x1f4:]); got != biosStart+1 {
		t.Errorf("core.img continues at sector %d, want %d", got, biosStart+1)
	}
}

func TestUnknownKind(t *testing.T) {
	err := Build(t.Context(), "windows", filepath.Join(t.TempDir(), "x.raw"), Options{})
	if err == nil || !strings.Contains(err.Error(), "debian-12") {
		t.Errorf("Build(windows) = %v, want an error that names the kinds", err)
	}
}

func TestEmbedRefusesWhatDoesNotFit(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := embed(f, make([]byte, sector), make([]byte, 2*mib)); err == nil {
		t.Error("embed put 2 MiB of core.img into a partition of 1 MiB")
	}
}
