package deploy

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// An impostor is somebody on the wire who is the machine's agent for a while.
type impostor struct {
	r    *rack
	me   inventory.Caller
	boot string
}

func (r *rack) impostor() impostor {
	r.t.Helper()
	s := impostor{
		r,
		inventory.Caller{Nonce: r.now().IssueBoot(testMAC).Nonce, Key: "the stranger's", IP: "192.0.2.66"},
		bootIDOf("stranger"),
	}
	if _, err := r.now().Register(r.t.Context(), s.me,
		inventory.Registration{MAC: testMAC, BootID: s.boot}); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// answers waits for an order, which must be the wanted one, and answers it.
func (s impostor) answers(want string, res inventory.Result) {
	s.r.t.Helper()
	o := s.ordered(want)
	res.BootID = s.boot
	if err := s.r.now().OrderResult(s.r.t.Context(), s.me, o.ID, res); err != nil {
		s.r.t.Fatal(err)
	}
}

func (s impostor) ordered(want string) inventory.Order {
	s.r.t.Helper()
	o, err := s.r.now().Next(s.r.t.Context(), s.me, inventory.Ask{BootID: s.boot})
	if err != nil || o.Do != want {
		s.r.t.Fatalf("the stranger's order is %q, %v, want %s", o.Do, err, want)
	}
	return o
}

func (s impostor) reports(disks ...inventory.Disk) {
	s.r.t.Helper()
	s.answers(inventory.DoInspect, inventory.Result{Report: &inventory.Report{Firmware: "uefi", Disks: disks}})
}

var (
	rootDisk = inventory.Disk{
		Name: "sda", Serial: "ROOT", Transport: "sata", ByPath: "pci-0000:00:17.0-ata-1", Bytes: 500 << 30,
	}
	dataDisk = inventory.Disk{
		Name: "sdb", Serial: "DATA", Transport: "sata", ByPath: "pci-0000:00:17.0-ata-2", Bytes: 4000 << 30,
		Content: []string{"zfs"},
	}
	forgedDisk = inventory.Disk{Name: "sdb", Transport: "sata", Bytes: dataDisk.Bytes}
)

// twoDisks is a rack whose machine is available with both disks. touched lists, by serial, what the machine's
// own agent was told to change since.
func twoDisks(t *testing.T) (r *rack, touched func() string) {
	r = newRack(t)
	r.disks = []inventory.Disk{rootDisk, dataDisk}
	r.dead.WriteImage = time.Hour // a test lets minutes pass in it
	var mu sync.Mutex
	var serials []string
	r.onOrder = func(o inventory.Order) {
		mu.Lock()
		defer mu.Unlock()
		if o.Target != nil {
			for _, d := range o.Target.Find([]inventory.Disk{rootDisk, dataDisk}) {
				serials = append(serials, d.Serial)
			}
		}
	}
	r.available()
	r.unplug()
	return r, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(serials, " ")
	}
}

// A stranger's report chooses no disk for the machine's own agent.
func TestAForgedReportChoosesNoDisk(t *testing.T) {
	t.Parallel()
	atDataDisk := forgedDisk
	atDataDisk.Name, atDataDisk.ByPath = "sda", dataDisk.ByPath
	whole := dataDisk
	whole.Name, whole.Content = "sda", nil
	for name, c := range map[string]struct {
		req    inventory.DeployRequest
		forged inventory.Disk
		reason string
	}{
		"no hint": {inventory.DeployRequest{Overwrite: true}, forgedDisk, "2 disks and no hint"},
		"by name": {
			inventory.DeployRequest{Overwrite: true, Disk: &inventory.DiskHint{Name: "sda"}},
			atDataDisk,
			"it is disk sda (serial=ROOT",
		},
		"by name, and the serial is known": {
			inventory.DeployRequest{Overwrite: true, Disk: &inventory.DiskHint{Name: "sda"}},
			whole,
			"it is disk sda (serial=ROOT",
		},
	} {
		for when, crash := range map[string]bool{"": false, ", a restart in the middle": true} {
			t.Run(name+when, func(t *testing.T) {
				t.Parallel()
				r, touched := twoDisks(t)
				r.impostor().reports(c.forged)
				r.ahead.Add(int64(3 * time.Minute)) // the stranger goes away
				if crash {
					r.mute.Store(true) // until the engine is another one
				}
				r.deploy(c.req)
				if crash {
					r.powerCycled()
					r.crash()
					r.mute.Store(false)
					r.powerOn(power.Boot{Device: power.DevicePXE})
				}
				m := r.until(inventory.Failed)
				if m.Failure.Step != string(inventory.PrepareDisk) ||
					!strings.Contains(m.Failure.Reason, c.reason) ||
					!strings.Contains(m.Failure.Hint, "--disk serial=") {
					t.Errorf("failure = %+v, want %q in prepare-disk, and --disk as the next move", m.Failure, c.reason)
				}
				if touched() != "" || m.Holds != "" || m.Disk != nil {
					t.Errorf("touched %q, and the machine remembers %v of %q, want nothing", touched(), m.Disk, m.Holds)
				}
			})
		}
	}
}

// Nor does a stranger who was the agent when the disk was prepared, and left before the end.
func TestAStrangersDiskIsNotWrittenByTheNextAgent(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]time.Duration{
		"the machine boots when he is silent": 40 * time.Second, "he is given up": 3 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, touched := twoDisks(t)
			r.ahead.Add(int64(time.Minute))
			s := r.impostor()
			s.reports(forgedDisk)
			r.deploy(inventory.DeployRequest{Overwrite: true})
			s.answers(inventory.DoPrepareDisk, inventory.Result{})
			s.ordered(inventory.DoWriteImage)
			r.ahead.Add(int64(silent))
			if silent < agentLost {
				r.powerOn(power.Boot{Device: power.DevicePXE})
			}
			m := r.until(inventory.Failed)
			if !strings.Contains(m.Failure.Reason, "2 disks and no hint") || touched() != "" {
				t.Errorf("failure = %+v, touched %q, want that there are two disks, and nothing", m.Failure, touched())
			}
			// What the stranger left on the record makes nothing of the other disk's data pxectl's own.
			if _, err := r.now().Retry(t.Context(), "test", "m1"); err == nil {
				t.Error("a retry begins")
			}
			r.deploy(inventory.DeployRequest{Disk: &inventory.DiskHint{Serial: "ROOT"}})
			r.until(inventory.Deployed)
			if touched() != "ROOT ROOT ROOT" {
				t.Errorf("touched %q, want ROOT in three steps", touched())
			}
		})
	}
}

// A report that tells more of the same disk than the one before, as that of a younger ramdisk, stops nothing.
func TestAReportThatGainedDetails(t *testing.T) {
	t.Parallel()
	full := inventory.Disk{
		Name: "sda", Serial: "ROOT", WWN: "0x5000c500a1b2c3d4", Transport: "sata", ByPath: rootDisk.ByPath,
		Model: "SSD", Bytes: rootDisk.Bytes, LogicalSector: 512,
	}
	for name, before := range map[string]inventory.Disk{
		"name and size":   {Name: "sda", Transport: "sata", Bytes: full.Bytes},
		"place and size":  {Name: "sdx", Transport: "sata", ByPath: full.ByPath, Bytes: full.Bytes},
		"serial and size": {Name: "sdx", Transport: "sata", Serial: "ROOT", Bytes: full.Bytes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.disks = []inventory.Disk{before}
			r.available()
			r.unplug()
			r.replaceDisks(full)
			r.ahead.Add(int64(3 * time.Minute))
			d := r.deploy(inventory.DeployRequest{})
			m := r.until(inventory.Deployed)
			if d, _ = r.now().Deployment(string(d.ID)); m.Disk == nil || *m.Disk != full.Identity() ||
				d.Disk == nil || *d.Disk != full.Identity() {
				t.Errorf("the machine's disk is %+v, the deployment's %+v, want %+v", m.Disk, d.Disk, full.Identity())
			}
		})
	}
}

// powerCycled waits until a deployment has booted the machine into the agent.
func (r *rack) powerCycled() {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		d, err := r.now().Deployment("m1")
		if rec := d.Record(); err == nil && rec != nil && rec.Step == inventory.BootAgent && !rec.ActedAt.IsZero() {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("the machine was never booted into the agent")
		}
	}
}
