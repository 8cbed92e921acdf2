package contents

import (
	"bytes"
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
	return Read(bytes.NewReader(disk), int64(len(disk)), ReadTable(bytes.NewReader(disk), int64(len(disk))))
}

func TestRead(t *testing.T) {
	yes := true
	want := Software{
		Architecture: "arm64", OS: "example", Version: "7.1", Name: "Example Linux 7 (seven)",
		CloudInit:   &yes,
		Filesystems: []string{"vfat", "ext4"}, Loaders: []string{"BOOTAA64.EFI"}, Smallest: 5259776,
	}
	disk := example(t)
	if diff := cmp.Diff(want, look(disk)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	// Without the file system, the loader shows the architecture.
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
	if got := look(make([]byte, 1<<20)); !cmp.Equal(got, Software{Fault: got.Fault}) ||
		!strings.HasSuffix(got.Fault, "an empty disk") {
		t.Errorf("an empty disk holds %+v", got)
	}
}

// Output of other programs, in the usual forms of images.
func TestFilesystems(t *testing.T) {
	testnet.Need(t, "mkfs.ext4", "mkfs.xfs", "mkfs.vfat", "mmd", "mcopy")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for name, text := range map[string]string{
		"etc/os-release": "ID=x\n",
		"usr/bin/sh":     "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 11) + "\x3e\x00",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(root, "usr/bin", fmt.Sprintf("program-%04d", i)), nil,
			0o644); err != nil {
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
		{
			"mkfs.ext4 -q -O ^extent,^64bit -b 4096 -N 8192 -d small FILE 64M",
			Software{Architecture: "", OS: "x", CloudInit: &no, Filesystems: []string{"ext4"}},
		},
		{"truncate -s 400M FILE && mkfs.xfs -q FILE", Software{Filesystems: []string{"xfs"}}},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/efi ::/efi/boot && mcopy -i " +
				"FILE root/etc/os-release ::/efi/boot/bootx64.efi",
			Software{Architecture: "amd64", Filesystems: []string{"vfat"}, Loaders: []string{"BOOTX64.EFI"}},
		},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 32 -s 1 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT",
			Software{Filesystems: []string{"vfat"}, Loaders: []string{}},
		},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT ::/EFI/debian " +
				"&& mcopy -i FILE root/etc/os-release ::/EFI/debian/grubaa64.efi && mcopy -i FILE " +
				"root/etc/os-release ::/EFI/debian/shimaa64.efi",
			Software{
				Architecture: "arm64",
				Filesystems:  []string{"vfat"},
				Loaders:      []string{},
				Vendor:       "EFI/DEBIAN/shimaa64.efi",
			},
		},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT ::/EFI/systemd " +
				"&& mcopy -i FILE root/etc/os-release ::/EFI/systemd/systemd-bootx64.efi",
			Software{
				Architecture: "amd64",
				Filesystems:  []string{"vfat"},
				Loaders:      []string{},
				Vendor:       "EFI/SYSTEMD/systemd-bootx64.efi",
			},
		},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/EFI '::/EFI/A distribution of " +
				"ours' && mcopy -i FILE root/etc/os-release '::/EFI/A distribution of ours/grubx64.efi'",
			Software{
				Architecture: "amd64",
				Filesystems:  []string{"vfat"},
				Loaders:      []string{},
				Vendor:       "EFI/A distribution of ours/grubx64.efi",
			},
		},
		{
			"truncate -s 40M FILE && mkfs.vfat -F 16 FILE && mmd -i FILE ::/EFI ::/EFI/BOOT ::/EFI/debian " +
				"&& mcopy -i FILE root/etc/os-release ::/EFI/BOOT/BOOTIA32.EFI && mcopy -i FILE " +
				"root/etc/os-release ::/EFI/debian/grubx64.efi",
			Software{
				Architecture: "386",
				Filesystems:  []string{"vfat"},
				Loaders:      []string{"BOOTIA32.EFI"},
				Vendor:       "EFI/DEBIAN/grubx64.efi",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.make, func(t *testing.T) {
			file := filepath.Join(dir, "fs")
			os.Remove(file)
			cmd := exec.Command("sh", "-ec",
				"mkdir -p small/etc; cp root/etc/os-release small/etc/; "+
					strings.ReplaceAll(tt.make, "FILE", file))
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

// Other programs make a disk, and FindFault checks it.
func TestJudge(t *testing.T) {
	testnet.Long(t)
	const size = 64 << 20
	for _, c := range []struct {
		name string
		make string // by sh, with the disk as $D
		want string // a part of the fault
	}{
		{"GPT with an ESP", `sgdisk -n 1:2048:+20M -t 1:ef00 $D`, ""},
		{"GPT with boot code", `sgdisk -n 1:2048:+20M $D; printf '\353\143' | dd of=$D conv=notrunc`, ""},
		{
			"MBR with boot code", `echo '2048,,83,*' | sfdisk $D; printf '\353\143' | dd of=$D conv=notrunc`,
			"",
		},
		{
			"GPT without boot code and ESP", `sgdisk -n 1:2048:+20M $D`,
			"no boot code in its first sector, and no EFI system partition",
		},
		{"empty GPT", `sgdisk -o $D`, "partition table is empty"},
		{
			"cut in its last partition", `sgdisk -n 1:2048:+20M -t 1:ef00 -n 2:0:0 $D; truncate -s 40M $D`,
			"partition 2 from LBA 43008 to 131038 lies outside of the disk's 81920 sectors, " +
				"or the image was cut off",
		},
		{
			"a damaged primary",
			`sgdisk -n 1:2048:+20M -t 1:ef00 $D; printf x | dd of=$D bs=1 seek=560 conv=notrunc`,
			"checksum is wrong",
		},
		{
			"all entries used",
			`sgdisk -n 1:2048:4095 -t 1:ef00 $D; for i in $(seq 2 128); do set -- $@ -n $i:0:+8K; done; ` +
				`sgdisk -a 1 $@ $D`,
			"all 128 entries of the GPT are used",
		},
		{
			"all four entries used", `printf '2048,2048,ef,*\n,2048\n,2048\n,2048\n' | sfdisk $D`,
			"all four entries of the MBR are used",
		},
		{"ext4", `mkfs.ext4 -q $D`, "an ext2, ext3 or ext4 file system"},
		{"FAT", `mkfs.vfat $D`, "a FAT file system"},
		{"text", `cat /etc/passwd > $D`, "a text file"},
		{"random bytes", `head -c 1M /dev/urandom > $D`, "compressed, encrypted or random bytes"},
		{"cpio", `cd /etc; echo passwd | cpio -o -H newc > $D`, "a cpio archive"},
		{"zeros", `:`, "an empty disk"},
		{"an ELF program", `cp /bin/true $D`, "an ELF program"},
		{"firmware", `cp /usr/share/OVMF/OVMF_CODE_4M.fd $D`, "a UEFI firmware volume"},
		{"a squashfs", `printf hsqs | dd of=$D conv=notrunc`, "a squashfs file system"},
		{"a plain ISO", `printf 'xCD001' | dd of=$D bs=1 seek=32768 conv=notrunc`, "an ISO 9660 image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, program := range []string{"sgdisk", "sfdisk", "mkfs.ext4", "mkfs.vfat", "cpio"} {
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("SKIPPED %s: needs the program %s", t.Name(), program)
				}
			}
			path := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", c.make)
			cmd.Env = append(os.Environ(), "D="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				if strings.Contains(c.make, "OVMF") {
					t.Skipf("SKIPPED %s: needs the package ovmf", t.Name())
				}
				t.Fatalf("%v\n%s", err, out)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, make([]byte, -len(raw)&511)...)
			got := look(raw)
			if (got.Fault == "") != (c.want == "") || !strings.Contains(got.Fault, c.want) {
				t.Errorf("fault = %q, want %q", got.Fault, c.want)
			}
			if c.want == "" && got.Smallest < int64(len(raw)) {
				t.Errorf("smallest disk = %d bytes, the image has %d", got.Smallest, len(raw))
			}
		})
	}
}

func TestOSRelease(t *testing.T) {
	id, version, name := osRelease([]byte("# comment\n\nID='a\x1b[31mb'\nVERSION_ID=\"\"\nPRETTY_NAME=\"" +
		strings.Repeat("x", 1000) + "\"\nVERSION_ID=12\n"))
	if id != "a[31mb" || version != "12" || name != strings.Repeat("x", maxWord) {
		t.Errorf("osRelease = %q, %q, %q", id, version, name)
	}
}

// Reading any image ends soon, and without a panic.
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
