package deploy

import (
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// When a BMC refuses to tell its boot device, the step's proof and the timeline say so, and so does the
// answer to an operator who sets it.
func TestABootDeviceThatIsNotTold(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.bmc.Quirks = powertest.Secretive
	r.noHome.Store(true) // a call home may come before the BMC's readings, and is the proof then
	r.dead.VerifyOS = 50 * time.Millisecond
	r.available()
	boot, err := r.now().SetBootDevice(t.Context(), "test", "m1", power.Boot{Device: power.DevicePXE})
	if err != nil || boot.Device != power.DevicePXE || !boot.Unread {
		t.Errorf("SetBoot = %s, %v, want pxe, unread", boot, err)
	}
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	d, err := r.now().Deployment("m1")
	if err != nil {
		t.Fatal(err)
	}
	const doubt = "the BMC refuses to tell what stands; the proof will decide"
	for _, rec := range d.History {
		if rec.Step == inventory.BootOS && !strings.Contains(rec.Proof, doubt) {
			t.Errorf("boot-os is proved by %q, want %q in it", rec.Proof, doubt)
		}
	}
	r.soon("the refusal on the timeline", func() bool {
		return strings.Contains(texts(t, r.now().cfg.Store),
			"boot device is read: read boot device 192.0.2.1:623: refused")
	})
}
