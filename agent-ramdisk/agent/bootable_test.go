package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/internal/testnet"
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
	command(t, "mmd", "-i", esp, "::EFI")
	made := map[string]bool{}
	for _, l := range loaders {
		if err := os.WriteFile(file, loaderOf(l), 0o600); err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Dir(l); !made[dir] {
			command(t, "mmd", "-i", esp, "::"+dir)
			made[dir] = true
		}
		command(t, "mcopy", "-i", esp, file, "::"+l)
	}
}

// loaderOf is the content of a loader, several clusters long.
func loaderOf(path string) []byte { return bytes.Repeat([]byte("MZ "+path+" "), 1000) }

// mtools stands in for the kernel, which may have no vfat here: unmounting copies the changes back.
func mtools(t *testing.T, disk string) func(string, int) (string, func() error, error) {
	return func(string, int) (string, func() error, error) {
		esp, dir := fmt.Sprintf("%s@@%d", disk, 1<<20), t.TempDir()
		command(t, "mcopy", "-s", "-i", esp, "::EFI", dir)
		return dir, func() error {
			command(t, "mcopy", "-s", "-o", "-i", esp, filepath.Join(dir, "EFI"), "::")
			return nil
		}, nil
	}
}

func TestBootable(t *testing.T) {
	testnet.Long(t)
	for _, p := range []string{"sgdisk", "mkfs.vfat", "mkfs.ext4", "mmd", "mcopy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	const fallback, debian = "EFI/BOOT/BOOTX64.EFI", "EFI/debian/shimx64.efi"
	const copied = `\EFI\BOOT\BOOTX64.EFI, a copy of \EFI\debian\shimx64.efi`
	for _, tt := range []struct {
		name            string
		loaders         []string
		second          string // disk: "", "copy", "other"
		bios, noRuntime bool
		noVFAT          bool
		entry           string
		fallback        string
		warnings        []string
		failed          string
	}{
		{name: "UEFI", loaders: []string{fallback, debian}, entry: "Boot0005 pxectl:mini"},
		{
			name:     "no fallback loader",
			loaders:  []string{debian},
			entry:    "Boot0005 pxectl:mini",
			fallback: copied,
		},
		{
			name:      "no fallback loader, no efivarfs",
			loaders:   []string{debian},
			noRuntime: true,
			fallback:  copied,
		},
		{
			name:     "no fallback loader, and none can be made",
			loaders:  []string{debian},
			noVFAT:   true,
			entry:    "Boot0005 pxectl:mini",
			warnings: []string{`no \EFI\BOOT\BOOTX64.EFI, and none could be made (no vfat)`},
		},
		{
			name: "neither loader nor entry", loaders: []string{debian}, noVFAT: true, noRuntime: true,
			failed: `no \EFI\BOOT\BOOTX64.EFI could be made: no vfat`,
		},
		{name: "no loader", warnings: []string{"no boot loader"}},
		{name: "no efivarfs", loaders: []string{fallback}, noRuntime: true},
		{name: "BIOS", bios: true},
		{
			name:    "copy on a second disk",
			loaders: []string{fallback},
			second:  "copy",
			entry:   "Boot0005 pxectl:mini",
			warnings: []string{
				"disk vdb holds a copy", "disk vdb has a filesystem labelled cidata",
				"disk vdb has an EFI system partition",
			},
		},
		{
			name: "another system on a second disk", loaders: []string{fallback}, second: "other",
			entry: "Boot0005 pxectl:mini", warnings: []string{"disk vdb has an EFI system partition"},
		},
		{
			name:   "BIOS, copy on a second disk",
			second: "copy",
			bios:   true,
			warnings: []string{
				"disk vdb holds a copy", "disk vdb has a filesystem labelled cidata",
				"disk vdb has boot code",
			},
		},
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
				if err := os.CopyFS(filepath.Join(ag.EFI, "efivars"),
					os.DirFS("../efi/testdata/efivars")); err != nil {
					t.Fatal(err)
				}
			}
			target := filepath.Join(ag.Dev, "vda")
			bootableDisk(t, target, tt.loaders...)
			ag.MountESP = mtools(t, target)
			if tt.noVFAT {
				ag.MountESP = func(string, int) (string, func() error, error) {
					return "", nil, errors.New("no vfat")
				}
			}
			disks := []inventory.Disk{
				{Name: "vda", Serial: "S1", Bytes: 64 << 20}, {Name: "vdc", Serial: "card reader"},
			}
			finish := inventory.Order{
				ID:    "f",
				Do:    inventory.DoFinishDisk,
				Image: &inventory.OrderImage{Name: "mini"},
				Seed:  &inventory.Seed{MetaData: "instance-id: 1\n"},
			}
			id := disks[0].Identity()
			finish.Target = &id
			ag.Disks = func() ([]inventory.Disk, error) { return disks, nil }
			second := filepath.Join(ag.Dev, "vdb")
			switch tt.second {
			case "copy":
				// The disk after an earlier deployment, with boot code.
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
			result := a.results[len(a.results)-2]
			f := result.Finished
			if f == nil || !strings.Contains(result.Error, tt.failed) ||
				(result.Error == "") != (tt.failed == "") {
				t.Fatalf("results = %+v, want the error %q", a.results, tt.failed)
			}
			// mmd writes short names.
			if f.BootEntry != tt.entry || !strings.EqualFold(f.Fallback, tt.fallback) {
				t.Errorf("boot entry %q, fallback %q, want %q and %q", f.BootEntry, f.Fallback, tt.entry,
					tt.fallback)
			}
			ok := len(f.Warnings) == len(tt.warnings)
			for _, w := range tt.warnings {
				ok = ok && slices.ContainsFunc(f.Warnings, func(got string) bool {
					return strings.Contains(got, w)
				})
			}
			if !ok {
				t.Errorf("warnings %q, want %q", f.Warnings, tt.warnings)
			}
		})
	}
}

// Overwriting or erasing a disk removes the boot entries of its system.
func TestEntriesOfTheOldSystem(t *testing.T) {
	testnet.Long(t)
	for _, p := range []string{"sgdisk", "mkfs.vfat", "mkfs.ext4", "mmd", "mcopy"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	// Both are from efibootmgr-debian.
	const variable, gpt = "Boot0007-8be4df61-93ca-11d2-aa0d-00e098032b8c", "11223344-5566-7788-99AA-BBCCDDEEFF00"
	for _, tt := range []struct {
		name  string
		order inventory.Order
		next  string // partition of the new system, "" for none
		want  []string
	}{
		{
			name:  "another image",
			order: inventory.Order{Do: inventory.DoPrepareDisk},
			next:  "11223344-5566-7788-99AA-BBCCDDEEFF01",
			want:  []string{"Boot0007 debian"},
		},
		{name: "the same image", order: inventory.Order{Do: inventory.DoPrepareDisk}, next: gpt},
		{name: "erase", order: inventory.Order{Do: inventory.DoErase}, want: []string{"Boot0007 debian"}},
		{
			name:  "quick erase",
			order: inventory.Order{Do: inventory.DoErase, Quick: true},
			want:  []string{"Boot0007 debian"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			ag.Dev = t.TempDir()
			ag.EFI = filepath.Join(ag.Dev, "efi")
			if err := os.CopyFS(filepath.Join(ag.EFI, "efivars"),
				os.DirFS("../efi/testdata/efivars")); err != nil {
				t.Fatal(err)
			}
			entry, err := os.ReadFile("../efi/testdata/efibootmgr-debian")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(ag.EFI, "efivars", variable), entry, 0o600); err != nil {
				t.Fatal(err)
			}
			target, next := filepath.Join(ag.Dev, "vda"), filepath.Join(ag.Dev, "next")
			bootableDisk(t, target, "EFI/BOOT/BOOTX64.EFI")
			command(t, "sgdisk", "-u", "15:"+gpt, target)
			d := inventory.Disk{Name: "vda", Serial: "S1", Bytes: 64 << 20}
			id := d.Identity()
			ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
			a.fail = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
				if tt.next != "" && r.URL.Path == "/agent/v1/orders/o/result" { // the image has arrived
					bootableDisk(t, next, "EFI/BOOT/BOOTX64.EFI")
					command(t, "sgdisk", "-u", "15:"+tt.next, next)
					if err := os.Rename(next, target); err != nil {
						t.Error(err)
					}
				}
				return false
			}
			order := tt.order
			order.ID, order.Target = "o", &id
			if order.Do == inventory.DoErase {
				order.Target, order.Targets = nil, []inventory.DiskIdentity{id}
			}
			a.orders = []inventory.Order{order}
			if tt.next != "" {
				a.orders = append(a.orders, inventory.Order{
					ID:     "f",
					Do:     inventory.DoFinishDisk,
					Target: &id,
					Seed:   &inventory.Seed{MetaData: "instance-id: 1\n"},
				})
			}
			a.orders = append(a.orders, reboot)
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			var got []string
			switch last := a.results[len(a.results)-2]; {
			case last.Error != "":
				t.Fatal(last.Error)
			case last.Erased != nil:
				got = last.Erased.Removed
			case last.Finished != nil:
				got = last.Finished.Removed
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("removed %q, want %q", got, tt.want)
			}
			_, err = os.Stat(filepath.Join(ag.EFI, "efivars", variable))
			if there := err == nil; there != (len(tt.want) == 0) {
				t.Errorf("the entry is there: %v", there)
			}
		})
	}
}
