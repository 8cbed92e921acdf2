package contents

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func example(t testing.TB) []byte {
	t.Helper()
	packed, err := os.ReadFile("testdata/disk.img.zst")
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	disk, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func look(disk []byte) Software {
	return Read(bytes.NewReader(disk), int64(len(disk)), ReadTable(disk))
}

func TestRead(t *testing.T) {
	yes := true
	want := Software{
		Architecture: "arm64", OS: "example", Version: "7.1", Name: "Example Linux 7 (seven)", CloudInit: &yes,
		Filesystems: []string{"vfat", "ext4"}, Loaders: []string{"BOOTAA64.EFI"},
	}
	disk := example(t)
	if diff := cmp.Diff(want, look(disk)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	// Without the file system, the loader tells the architecture.
	esp, root := disk[64*512:576*512], disk[576*512:1600*512]
	want.Filesystems, want.OS, want.Version, want.Name, want.CloudInit = []string{"vfat"}, "", "", "", nil
	noRoot := bytes.Clone(disk)
	clear(noRoot[576*512 : 1600*512])
	if diff := cmp.Diff(want, look(noRoot)); diff != "" {
		t.Errorf("without a root, -want +got:\n%s", diff)
	}

	// A file system without a partition table.
	if got := look(root); got.OS != "example" || got.Loaders != nil {
		t.Errorf("a bare file system: %+v, want the same system", got)
	}
	noLoader := bytes.Replace(disk, []byte("BOOTAA64EFI"), []byte("GRUBAA64EFI"), 1)
	if got := look(noLoader); got.Loaders == nil || len(got.Loaders) != 0 {
		t.Errorf("an ESP without a loader has %q, want none, known to be none", got.Loaders)
	}
	noBoot := bytes.Replace(disk, []byte("BOOT       \x10"), []byte("ELSE       \x10"), 1)
	if got := look(noBoot); got.Loaders == nil || len(got.Loaders) != 0 {
		t.Errorf("an ESP without EFI/BOOT has %q, want none, known to be none", got.Loaders)
	}
	if got := look(esp[:5000]); got.Loaders != nil {
		t.Errorf("a cut file system has the loaders %q, want unknown", got.Loaders)
	}
	if got := look(make([]byte, 1<<20)); !cmp.Equal(got, Software{}) {
		t.Errorf("an empty disk holds %+v", got)
	}
}

// What other people's programs make, in the forms that images come in.
func TestFilesystems(t *testing.T) {
	testnet.Need(t, "mkfs.ext4", "mkfs.xfs", "mkfs.vfat", "mmd", "mcopy")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for name, text := range map[string]string{"etc/os-release": "ID=x\n", "usr/bin/sh": "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 11) + "\x3e\x00"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(root, "usr/bin", fmt.Sprintf("program-%04d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	no := false
	system := Software{Architecture: "amd64", OS: "x", CloudInit: &no, Filesystems: []string{"ext4"}}
	tests := []struct {
		make string
		want Software
	}{
		{"mkfs.ext4 -q -d root FILE 64M", system},
		{"mkfs.ext4 -q -O ^64bit,^metadata_csum -d root FILE 64M", system},
		{"mkfs.ext4 -q -b 1024 -I 128 -O ^flex_bg -d root FILE 64M", system},
		{"mkfs.ext4 -q -O ^extent,^64bit -b 4096 -N 8192 -d small FILE 64M", Software{Architecture: "", OS: "x", CloudInit: &no, Filesystems: []string{"ext4"}}},
		{"truncate -s 400M FILE && mkfs.xfs -q FILE", Software{Filesystems: []string{"xfs"}}},
		{"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/efi ::/efi/boot && mcopy -i FILE root/etc/os-release ::/efi/boot/bootx64.efi", Software{Architecture: "amd64", Filesystems: []string{"vfat"}, Loaders: []string{"BOOTX64.EFI"}}},
		{"truncate -s 40M FILE && mkfs.vfat -F 32 -s 1 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT", Software{Filesystems: []string{"vfat"}, Loaders: []string{}}},
		{"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT ::/EFI/debian && mcopy -i FILE root/etc/os-release ::/EFI/debian/grubaa64.efi && mcopy -i FILE root/etc/os-release ::/EFI/debian/shimaa64.efi", Software{Architecture: "arm64", Filesystems: []string{"vfat"}, Loaders: []string{}, Vendor: "EFI/DEBIAN/SHIMAA64.EFI"}},
	}
	for _, tt := range tests {
		t.Run(tt.make, func(t *testing.T) {
			file := filepath.Join(dir, "fs")
			os.Remove(file)
			cmd := exec.Command("sh", "-ec", "mkdir -p small/etc; cp root/etc/os-release small/etc/; "+strings.ReplaceAll(tt.make, "FILE", file))
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			table := Table{Kind: "gpt", Partitions: []Partition{{0, st.Size(), true}}}
			if diff := cmp.Diff(tt.want, Read(f, st.Size(), table)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestReadTable(t *testing.T) {
	le := binary.LittleEndian
	gpt := func(sector int) []byte {
		b := make([]byte, 64<<10)
		b[0], b[510], b[511] = 0xeb, 0x55, 0xaa
		copy(b[sector:], "EFI PART")
		le.PutUint64(b[sector+72:], 2)
		le.PutUint32(b[sector+80:], 128)
		le.PutUint32(b[sector+84:], 128)
		copy(b[2*sector:], bytes.Repeat([]byte{7}, 16))
		le.PutUint64(b[2*sector+32:], 100)
		le.PutUint64(b[2*sector+40:], 109)
		copy(b[2*sector+128:], espType)
		le.PutUint64(b[2*sector+128+32:], 1<<63) // nonsense
		le.PutUint64(b[2*sector+128+40:], 1<<63)
		return b
	}
	mbr := make([]byte, 4096)
	mbr[510], mbr[511] = 0x55, 0xaa
	mbr[446], mbr[446+4] = 0x80, 0xef
	le.PutUint32(mbr[446+8:], 64)
	le.PutUint32(mbr[446+12:], 2048)
	hostile := gpt(512)
	le.PutUint64(hostile[512+72:], 1<<63)
	tests := []struct {
		name string
		head []byte
		want Table
	}{
		{"GPT", gpt(512), Table{"gpt", 512, true, []Partition{{51200, 5120, false}, {ESP: true}}}},
		{"GPT in sectors of 4096", gpt(4096), Table{"gpt", 4096, true, []Partition{{409600, 40960, false}, {ESP: true}}}},
		{"GPT cut", gpt(512)[:1024+128], Table{"gpt", 512, true, []Partition{{51200, 5120, false}}}},
		{"GPT that points away", hostile, Table{"gpt", 512, true, nil}},
		{"MBR", mbr, Table{"mbr", 512, false, []Partition{{32768, 1 << 20, true}}}},
		{"nothing", make([]byte, 4096), Table{SectorSize: 512}},
		{"short", []byte{1}, Table{SectorSize: 512}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, ReadTable(tt.head)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOSRelease(t *testing.T) {
	id, version, name := osRelease([]byte("# comment\n\nID='a\x1b[31mb'\nVERSION_ID=\"\"\nPRETTY_NAME=\"" + strings.Repeat("x", 1000) + "\"\nVERSION_ID=12\n"))
	if id != "a[31mb" || version != "12" || name != strings.Repeat("x", maxWord) {
		t.Errorf("osRelease = %q, %q, %q", id, version, name)
	}
}

// Whatever an image holds, looking at it ends, soon and without a panic.
func FuzzRead(f *testing.F) {
	disk := example(f)
	f.Add(disk[64*512 : 128*512])
	f.Add(disk[576*512 : 1000*512])
	f.Add(disk[:256<<10])
	f.Fuzz(func(t *testing.T, disk []byte) {
		s := look(disk)
		if len(s.OS)+len(s.Version)+len(s.Name) > 3*maxWord || len(s.Filesystems) > maxPartitions {
			t.Errorf("more than there is room for: %+v", s)
		}
	})
}
