package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A distribution's image whose only loader lies in its own directory gets one where firmware looks without a
// boot entry. A release removes its boot entry and erases both disks of the machine.
func TestAnImageWithoutAFallbackLoader(t *testing.T) {
	for _, p := range []string{"mcopy", "mmd", "mdeltree"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	r := newRack(t, "m1:uefi:nvme+virtio", mini)
	image := filepath.Join(r.dir, "vendor.raw")
	moveLoader(t, image)
	r.pxectl("image", "import", image, "--name", "vendor")
	r.powerOn("m1")
	r.until(60*time.Second, "m1 has reported", func() bool { return r.machine(mac1).Report != nil })
	r.enroll("m1", mac1)
	r.pxectl("deploy", "m1", "--image", "vendor", "--disk", "transport=nvme", "--wait", "--timeout", "4m")
	f := r.deployment("m1").Finished
	if f == nil || !strings.HasPrefix(f.Fallback, `\EFI\BOOT\BOOTX64.EFI, a copy of \EFI\`) ||
		!strings.Contains(f.BootEntry, "pxectl:vendor") || len(f.Warnings) > 0 {
		t.Fatalf("finish-disk = %+v, want a copied loader and a boot entry", f)
	}
	r.proveDisk("m1")

	r.pxectl("release", "m1", "--yes", "--wait", "--timeout", "4m")
	d := r.deployment("m1")
	if len(d.Erased) != 2 {
		t.Fatalf("erased: %+v, want both disks", d.Erased)
	}
	var removed []string
	for _, e := range d.Erased {
		t.Logf("%s: %s after %d ms: %s", e.Disk.Name, e.Method, e.TookMS, e.Proof)
		removed = append(removed, e.Removed...)
	}
	if !slices.Equal(removed, []string{f.BootEntry}) {
		t.Errorf("removed boot entries %q, want %q", removed, f.BootEntry)
	}
	if m := r.machine("m1"); m.State != inventory.Available {
		t.Errorf("m1 is %s after the release", m.State)
	}
}

// moveLoader makes an image of mini's whose loader is at the path of a distribution's shim, with a second
// stage beside it.
func moveLoader(t *testing.T, image string) {
	t.Helper()
	raw, err := os.ReadFile(mini)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	esp, loader := fmt.Sprintf("%s@@%d", image, 4096*512), filepath.Join(t.TempDir(), "loader")
	for _, c := range [][]string{
		{"mcopy", "-i", esp, "::/EFI/BOOT/BOOTX64.EFI", loader},
		{"mdeltree", "-i", esp, "::/EFI/BOOT"},
		{"mmd", "-i", esp, "::/EFI/mini"},
		{"mcopy", "-i", esp, loader, "::/EFI/mini/shimx64.efi"},
		{"mcopy", "-i", esp, loader, "::/EFI/mini/grubx64.efi"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", c, err, out)
		}
	}
}
