package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	for _, p := range []string{"mkfs.vfat", "mmd", "mcopy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	for _, tt := range []struct {
		bits int
		size int64
	}{{12, 2 << 20}, {16, 32 << 20}, {32, 64 << 20}} {
		t.Run(fmt.Sprintf("FAT%d", tt.bits), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "esp")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, tt.size); err != nil {
				t.Fatal(err)
			}
			loader := filepath.Join(t.TempDir(), "loader")
			if err := os.WriteFile(loader, []byte("MZ"), 0o600); err != nil {
				t.Fatal(err)
			}
			// Whole clusters and a part of one.
			data := bytes.Repeat([]byte("0123456789"), 1000)
			large := filepath.Join(t.TempDir(), "large")
			if err := os.WriteFile(large, data, 0o600); err != nil {
				t.Fatal(err)
			}
			commands := [][]string{
				{"mkfs.vfat", "-F", fmt.Sprint(tt.bits), "-s", "1", path},
				{"mmd", "-i", path, "::EFI", "::EFI/BOOT", "::EFI/a distribution"},
				{"mcopy", "-i", path, loader, "::EFI/BOOT/BOOTX64.EFI"},
				{"mcopy", "-i", path, loader, "::EFI/a distribution/shimx64-signed.efi"},
				{"mcopy", "-i", path, large, "::EFI/large"},
			}
			// Enough files that the directory has several clusters.
			for i := range 40 {
				commands = append(commands, []string{
					"mcopy", "-i", path, loader, fmt.Sprintf("::EFI/BOOT/some file with a long name %d", i),
				})
			}
			commands = append(commands, []string{"mcopy", "-i", path, loader, "::EFI/BOOT/last.efi"})
			for _, c := range commands {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", c, err, out)
				}
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]bool{
				`\EFI\BOOT\BOOTX64.EFI`: true, "efi/boot/last.efi": true,
				"/EFI/a distribution/shimx64-signed.efi": true,
				"EFI/BOOT/BOOTAA64.EFI":                  false, "EFI/BOOT": false,
				"EFI/BOOT/last.efi/x": false, "": false,
			} {
				if got := v.Has(name); got != want {
					t.Errorf("Has(%q) = %v, want %v", name, got, want)
				}
			}
			if l, err := v.List("EFI"); err != nil || len(l) != 5 || l[3].Name != "a distribution" ||
				!l[3].Dir {
				t.Errorf("List(EFI) = %+v, %v", l, err)
			}
			if got, err := v.Read("EFI/large", 10000); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Read = %d bytes, %v, want the %d of the file", len(got), err, len(data))
			}
			if _, err := v.Read("EFI/large", 9999); err == nil {
				t.Error("Read of a file larger than the limit: no error")
			}
			for _, name := range []string{"EFI/none", "none/large", "EFI/BOOT"} {
				if _, err := v.Read(name, 10000); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Read(%q) = %v, want that it does not exist", name, err)
				}
			}
		})
	}
}

func TestReadWhatWeWrite(t *testing.T) {
	img, err := Build(4<<20, 512, "cidata", []File{{Name: "meta-data", Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(bytes.NewReader(img))
	if err != nil || !v.Has("meta-data") {
		t.Errorf("Open of a seed: %v", err)
	}
}

// FuzzRead: any filesystem is read or gives an error.
func FuzzRead(f *testing.F) {
	img, err := Build(64<<10, 512, "cidata", []File{{Name: "meta-data", Data: []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img[:16<<10])
	f.Fuzz(func(_ *testing.T, data []byte) {
		v, err := Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		entries, _ := v.List("")
		for _, e := range entries[:min(4, len(entries))] {
			_, _ = v.List(e.Name)
			_, _ = v.Read(e.Name, 64<<10)
		}
	})
}
