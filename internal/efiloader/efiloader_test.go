package efiloader

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func TestFind(t *testing.T) {
	testnet.Need(t, "mkfs.vfat", "mmd", "mcopy")
	many := []string{}
	for i := range maxVendors {
		many = append(many, fmt.Sprintf("EFI/vendor%02d/other.efi", i))
	}
	for name, c := range map[string]struct {
		have     []string
		empty    []string // files with nothing in them
		arch     string
		fallback bool
		want     string
	}{
		"nothing": {},
		"the fallback": {
			have:     []string{"EFI/BOOT/BOOTX64.EFI", "EFI/debian/shimx64.efi"},
			fallback: true,
			want:     `\EFI\BOOT\BOOTX64.EFI`,
		},
		"in other letters": {
			have: []string{"efi/boot/bootx64.efi"}, fallback: true, want: `\EFI\BOOT\BOOTX64.EFI`,
		},
		"a fallback of nothing": {
			empty: []string{"EFI/BOOT/BOOTX64.EFI"},
			have:  []string{"EFI/debian/grubx64.efi"},
			want:  `\EFI\debian\grubx64.efi`,
		},
		"another architecture's": {have: []string{"EFI/BOOT/BOOTAA64.EFI", "EFI/debian/shimaa64.efi"}},
		"arm64": {
			arch: "arm64", have: []string{"EFI/debian/shimaa64.efi"}, want: `\EFI\debian\shimaa64.efi`,
		},
		"shim before GRUB": {
			have: []string{"EFI/alpha/grubx64.efi", "EFI/beta/shimx64.efi"}, want: `\EFI\beta\shimx64.efi`,
		},
		"systemd-boot": {
			have: []string{"EFI/systemd/systemd-bootx64.efi"}, want: `\EFI\systemd\systemd-bootx64.efi`,
		},
		"a long name": {
			have: []string{"EFI/A distribution of ours/grubx64.efi"},
			want: `\EFI\A distribution of ours\grubx64.efi`,
		},
		"a file in a vendor's place":    {have: []string{"EFI/shimx64.efi"}},
		"beyond the directories looked": {have: append(many, "EFI/zzz/shimx64.efi")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, content := filepath.Join(dir, "esp"), filepath.Join(dir, "content")
			run := func(program string, args ...string) {
				t.Helper()
				if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
					t.Fatalf("%s %q: %v\n%s", program, args, err, out)
				}
			}
			if err := os.WriteFile(content, []byte("MZ"), 0o644); err != nil {
				t.Fatal(err)
			}
			run("truncate", "-s", "8M", file)
			run("mkfs.vfat", file)
			made := map[string]bool{}
			put := func(from, path string) {
				t.Helper()
				names := strings.Split(path, "/")
				for i := 1; i < len(names); i++ {
					if d := strings.Join(names[:i], "/"); !made[strings.ToUpper(d)] {
						made[strings.ToUpper(d)] = true
						run("mmd", "-i", file, "::/"+d)
					}
				}
				run("mcopy", "-i", file, from, "::/"+path)
			}
			for _, path := range c.have {
				put(content, path)
			}
			for _, path := range c.empty {
				put(os.DevNull, path)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v, err := fat.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			if fallback, path := Find(v, c.arch); fallback != c.fallback ||
				!strings.EqualFold(path, c.want) { // mmd writes short names in capitals
				t.Errorf("Find = %v, %q, want %v, %q", fallback, path, c.fallback, c.want)
			}
		})
	}
}
