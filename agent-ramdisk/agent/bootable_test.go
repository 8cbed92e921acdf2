package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
)

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// bootableDisk makes a disk with an EFI system partition, a filesystem, and these loaders.
func bootableDisk(t *testing.T, path string, loaders ...string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "sgdisk", "-n", "1:24M:+16M", "-t", "1:8300", "-n", "15:2048:+8M", "-t", "15:ef00", path)
	esp := fmt.Sprintf("%s@@%d", path, 1<<20)
	command(t, "mkfs.vfat", "--offset", "2048", path, "8192")
	command(t, "mkfs.ext4", "-q", "-E", fmt.Sprintf("offset=%d", 24<<20), path, "16M")
	file := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(file, []byte("MZ"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "mmd", "-i", esp, "::EFI")
	for _, l := range loaders {
		command(t, "mmd", "-i", esp, "::"+filepath.Dir(l))
		command(t, "mcopy", "-i", esp, file, "::"+l)
	}
}

func TestBootable(t *testing.T) {
	for _, p := range []string{"sgdisk", "mkfs.vfat", "mkfs.ext4", "mmd", "mcopy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	const fallback, debian = "EFI/BOOT/BOOTX64.EFI", "EFI/debian/shimx64.efi"
	for _, tt := range []struct {
		name            string
		loaders         []string
		second          string // disk: "", "copy", "other"
		bios, noRuntime bool
		entry           string
		warnings        []string
	}{
		{name: "UEFI", loaders: []string{fallback, debian}, entry: "Boot0005 pxectl:mini"},
		{name: "no fallback loader", loaders: []string{debian}, entry: "Boot0005 pxectl:mini", warnings: []string{`no \EFI\BOOT\BOOTX64.EFI`}},
		{name: "no loader", warnings: []string{"no boot loader"}},
		{name: "no efivarfs", loaders: []string{fallback}, noRuntime: true},
		{name: "BIOS", bios: true},
		{
			name: "copy on a second disk", loaders: []string{fallback}, second: "copy", entry: "Boot0005 pxectl:mini",
			warnings: []string{"disk vdb holds a copy", "disk vdb has a filesystem labelled cidata", "disk vdb has an EFI system partition"},
		},
		{name: "another system on a second disk", loaders: []string{fallback}, second: "other", entry: "Boot0005 pxectl:mini", warnings: []string{"disk vdb has an EFI system partition"}},
		{name: "BIOS, copy on a second disk", second: "copy", bios: true, warnings: []string{"disk vdb holds a copy", "disk vdb has a filesystem labelled cidata", "disk vdb has boot code"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			ag.Dev = t.TempDir()
			ag.EFI = filepath.Join(ag.Dev, "efi")
			switch {
			case tt.noRuntime:
				if err := os.Mkdir(ag.EFI, 0o755); err != nil {
					t.Fatal(err)
				}
			case !tt.bios:
				if err := os.CopyFS(filepath.Join(ag.EFI, "efivars"), os.DirFS("../efi/testdata/efivars")); err != nil {
					t.Fatal(err)
				}
			}
			target := filepath.Join(ag.Dev, "vda")
			bootableDisk(t, target, tt.loaders...)
			disks := []inventory.Disk{{Name: "vda", Serial: "S1", Bytes: 64 << 20}, {Name: "vdc", Serial: "card reader"}}
			finish := inventory.Order{ID: "f", Do: inventory.DoFinishDisk, Image: &inventory.OrderImage{Name: "mini"}, Seed: &inventory.Seed{MetaData: "instance-id: 1\n"}}
			id := disks[0].Identity()
			finish.Target = &id
			ag.Disks = func() ([]inventory.Disk, error) { return disks, nil }
			second := filepath.Join(ag.Dev, "vdb")
			switch tt.second {
			case "copy":
				// The disk as an earlier deployment left it, with boot code.
				first := finish
				first.ID = "first"
				a.orders = []inventory.Order{first, reboot}
				if err := runAgent(t, ag); err != nil {
					t.Fatal(err)
				}
				raw, err := os.ReadFile(target)
				if err != nil {
					t.Fatal(err)
				}
				copy(raw, "\xeb\x3c boot code")
				if err := os.WriteFile(second, raw, 0o600); err != nil {
					t.Fatal(err)
				}
			case "other":
				bootableDisk(t, second, fallback)
			}
			if tt.second != "" {
				disks = append(disks, inventory.Disk{Name: "vdb", Serial: "S2", Bytes: 64 << 20})
			}
			a.orders = []inventory.Order{finish, reboot}
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			f := a.results[len(a.results)-2].Finished
			if f == nil {
				t.Fatalf("results = %+v", a.results)
			}
			if f.BootEntry != tt.entry {
				t.Errorf("boot entry %q, want %q", f.BootEntry, tt.entry)
			}
			ok := len(f.Warnings) == len(tt.warnings)
			for _, w := range tt.warnings {
				ok = ok && slices.ContainsFunc(f.Warnings, func(got string) bool { return strings.Contains(got, w) })
			}
			if !ok {
				t.Errorf("warnings %q, want %q", f.Warnings, tt.warnings)
			}
		})
	}
}
