package deploy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A stranger who is the agent of an available machine for a moment reports a disk, so that a deployment is
// planned with that. The machine's own agent reports its disks before it writes; none is written to that the
// operator's words do not choose among these.
func TestAForgedReportChoosesNoDisk(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	root := inventory.Disk{
		Name: "sda", Serial: "ROOT", Transport: "sata", ByPath: "pci-0000:00:17.0-ata-1", Bytes: 500 * gib,
	}
	data := inventory.Disk{
		Name: "sdb", Serial: "DATA", Transport: "sata", ByPath: "pci-0000:00:17.0-ata-2", Bytes: 4000 * gib,
	}
	for _, c := range []struct {
		name   string
		hint   *inventory.DiskHint
		forged inventory.Disk
		want   string
	}{
		{
			name:   "no hint",
			forged: inventory.Disk{Name: "sdb", Transport: "sata", Bytes: data.Bytes},
			want:   "2 disks and no hint",
		},
		{
			name:   "a hint by name",
			hint:   &inventory.DiskHint{Name: "sda"},
			forged: inventory.Disk{Name: "sda", Transport: "sata", ByPath: data.ByPath, Bytes: data.Bytes},
			want:   "by what the agent reports now it would be sda (serial=ROOT",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.disks = []inventory.Disk{root, data}
			var touched atomic.Bool
			r.setOnOrder(func(o inventory.Order) {
				if o.Do == inventory.DoPrepareDisk || o.Do == inventory.DoWriteImage {
					touched.Store(true)
				}
			})
			r.available()
			r.unplug() // its own agent ends
			r.bmc.Set(false)
			e := r.now()
			stranger := inventory.Caller{
				Nonce: e.IssueBoot(testMAC).Nonce, Key: "the stranger's", IP: "192.0.2.66",
			}
			boot := bootIDOf("the stranger's")
			if _, err := e.Register(t.Context(), stranger,
				inventory.Registration{MAC: testMAC, BootID: boot}); err != nil {
				t.Fatal(err)
			}
			o, err := e.Next(t.Context(), stranger, inventory.Ask{BootID: boot})
			if err != nil || o.Do != inventory.DoInspect {
				t.Fatalf("the stranger's order is %q, %v, want %s", o.Do, err, inventory.DoInspect)
			}
			err = e.OrderResult(t.Context(), stranger, o.ID, inventory.Result{
				BootID: boot,
				Report: &inventory.Report{Firmware: "uefi", Disks: []inventory.Disk{c.forged}},
			})
			if err != nil {
				t.Fatal(err)
			}
			r.ahead.Add(int64(3 * time.Minute)) // the stranger has left
			r.deploy(inventory.DeployRequest{Overwrite: true, Disk: c.hint})
			m := r.until(inventory.Failed)
			if m.Failure.Step != string(inventory.PrepareDisk) || !strings.Contains(m.Failure.Reason, c.want) {
				t.Errorf("failure = %+v, want %q before the disk is prepared", m.Failure, c.want)
			}
			if m.Holds != "" || touched.Load() {
				t.Errorf("the disk is claimed by %q, and touched: %v; want neither", m.Holds, touched.Load())
			}
		})
	}
}
