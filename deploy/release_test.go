package deploy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

var threeDisks = []inventory.Disk{
	{
		Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512, Vendor: "QEMU",
		Model: "A",
	},
	{
		Name: "vdb", Serial: "D2", Transport: "virtio", Bytes: 8 << 30, LogicalSector: 512,
		Content: []string{"zfs"},
	},
	{Name: "sdz", Serial: "STICK", Transport: "usb", Bytes: 1 << 30, Content: []string{"vfat"}},
}

// deployed is a rack whose machine runs a system on the first of three disks.
func deployed(t *testing.T) *rack {
	r := newRack(t)
	r.disks = threeDisks
	r.available()
	r.deploy(inventory.DeployRequest{Disk: &inventory.DiskHint{Serial: "D1"}})
	r.until(inventory.Deployed)
	return r
}

func (r *rack) release(req inventory.EraseRequest) inventory.Deployment {
	r.t.Helper()
	d, err := r.now().Release(context.Background(), "test", "m1", req)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// erasures are oldest first.
func (r *rack) erasures() []inventory.Erasure {
	r.t.Helper()
	all, more, err := r.now().Erasures(ErasureQuery{Limit: MaxPage})
	if err != nil || more {
		r.t.Fatal(err, more)
	}
	slices.Reverse(all)
	return all
}

func TestRelease(t *testing.T) {
	t.Parallel()
	r := deployed(t)
	run := r.release(inventory.EraseRequest{})
	m := r.until(inventory.Available)
	if m.Holds != "" || m.Deployment != run.ID || m.Failure != nil ||
		!strings.Contains(m.LastProof, "2 disks erased and read back: vda by discard, vdb by discard") {
		t.Errorf("after a release the machine is %+v, want it free, with the proof", m)
	}
	if c := m.Report.Disks; len(c[1].Content) != 0 || len(c[2].Content) != 1 {
		t.Errorf("known of its disks: %+v, want nothing on vdb, and the stick as it was", c)
	}
	d, err := r.now().Deployment("m1")
	if err != nil || d.Outcome != inventory.Succeeded || len(d.Erased) != 2 ||
		countSteps(d, inventory.BootAgent) != 1 {
		t.Errorf("the run is %+v, %v, want two disks erased after one boot", d, err)
	}
	all := r.erasures()
	if len(all) != 2 || all[0].Disk.Serial != "D1" || all[1].Disk.Serial != "D2" ||
		all[0].Model != "QEMU A" || all[0].Method != "discard" || all[0].MachineName != "m1" ||
		all[0].Actor != "test" {
		t.Errorf("records: %+v, want D1 and D2", all)
	}
	for _, entry := range []string{"Boot0006 debian", "Boot0007 D1", "Boot0007 D2"} {
		r.soon("the timeline tells that "+entry+" was removed", func() bool {
			events, _ := r.now().Events(0, "", 1000)
			return slices.ContainsFunc(events, func(ev inventory.Event) bool {
				return strings.HasSuffix(ev.Text, "removed: "+entry)
			})
		})
	}
	page, more, err := r.now().Erasures(ErasureQuery{Limit: 1})
	if err != nil || !more || len(page) != 1 || page[0].Disk.Serial != "D2" {
		t.Fatalf("the first page has %+v, more %v, %v, want the newest", page, more, err)
	}
	if page, more, err = r.now().Erasures(ErasureQuery{Limit: 1, Before: page[0].Seq}); err != nil || more ||
		len(page) != 1 || page[0].Disk.Serial != "D1" {
		t.Errorf("the second page has %+v, more %v, %v, want the older one", page, more, err)
	}
	if _, _, err := r.now().Erasures(ErasureQuery{Limit: MaxPage + 1}); err == nil {
		t.Error("a page without end is given")
	}
	// The records outlive the machine; a serial finds them.
	if err := r.now().DeleteMachine(context.Background(), "test", "m1"); err != nil {
		t.Fatal(err)
	}
	if got, _, err := r.now().Erasures(ErasureQuery{Of: "D2", Limit: 9}); err != nil || len(got) != 1 ||
		got[0].Disk.Name != "vdb" {
		t.Errorf("Erasures(D2) = %+v, %v", got, err)
	}
}

func TestAReleasedMachineIsDeployedAgain(t *testing.T) {
	t.Parallel()
	r := deployed(t)
	r.release(inventory.EraseRequest{Quick: true})
	m := r.until(inventory.Available)
	if !strings.Contains(m.LastProof, "2 disks not erased: vda by metadata only") {
		t.Errorf("last proof of a quick release = %q, want that nothing was erased", m.LastProof)
	}
	// The same disk as before, and no --redeploy.
	r.deploy(inventory.DeployRequest{})
	if m = r.until(inventory.Deployed); m.Disk.Serial != "D1" {
		t.Errorf("deployed to %+v, want D1", m.Disk)
	}
}

// A crash at the order for either disk loses nothing, and no disk is erased twice.
func TestAReleaseSurvivesCrashes(t *testing.T) {
	for _, at := range []string{"D1", "D2"} {
		t.Run("at "+at, func(t *testing.T) {
			t.Parallel()
			r := deployed(t)
			var once sync.Once
			r.setOnOrder(func(o inventory.Order) {
				if o.Do == inventory.DoErase && o.Target.Serial == at {
					once.Do(func() { r.crash() })
				}
			})
			r.release(inventory.EraseRequest{})
			r.until(inventory.Available)
			if all := r.erasures(); len(all) != 2 || all[0].Disk.Serial != "D1" ||
				all[1].Disk.Serial != "D2" {
				t.Errorf("records: %+v, want D1 and D2 once each", all)
			}
		})
	}
}

// What is erased is not ordered again, and a result that comes twice makes one record.
func TestARepeatedErasure(t *testing.T) {
	t.Parallel()
	r := deployed(t)
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	r.setOnOrder(func(o inventory.Order) {
		if o.Do != inventory.DoErase || o.Target.Serial != "D2" {
			return
		}
		once.Do(func() { // D1's result has been acknowledged
			_, err := call(context.Background(), w, func() (struct{}, error) {
				return struct{}{}, w.erased(threeDisks[0].Identity(), inventory.Erased{Method: "discard"})
			})
			if err != nil {
				t.Error(err)
			}
			w.orders.mu.Lock()
			defer w.orders.mu.Unlock()
			if o := w.orders.order; o == nil || len(o.Targets) != 1 || o.Targets[0].Serial != "D2" {
				t.Errorf("the order that stands is %+v, want D2 alone", o)
			}
		})
	})
	r.release(inventory.EraseRequest{})
	r.until(inventory.Available)
	if all := r.erasures(); len(all) != 2 || all[0].Disk.Serial != "D1" || all[1].Disk.Serial != "D2" {
		t.Errorf("records: %+v, want D1 and D2 once each", all)
	}
}

func TestAReleaseThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	r := deployed(t)
	r.setAnswer(func(o inventory.Order) inventory.Result {
		if o.Do == inventory.DoErase && o.Target.Serial == "D1" {
			return inventory.Result{
				Error: "vda: ATA secure erase: the firmware has frozen the drive", Hint: "pull the drive",
			}
		}
		return inventory.Result{}
	})
	r.release(inventory.EraseRequest{})
	m := r.until(inventory.Failed)
	if f := m.Failure; f.Step != "erase-disks" || !strings.Contains(f.Reason, "frozen") ||
		f.Hint != "pull the drive" {
		t.Errorf("failure = %+v, want the agent's reason and hint", f)
	}
	if r.now().IssueBoot(testMAC).Local {
		t.Error("a machine whose erase failed in the middle boots its disk")
	}
	if all := r.erasures(); len(all) != 1 || all[0].Disk.Serial != "D2" {
		t.Errorf("records: %+v, want D2, which went well, alone", all)
	}
	r.setAnswer(nil)
	r.release(inventory.EraseRequest{})
	r.until(inventory.Available)
	if all := r.erasures(); len(all) != 3 {
		t.Errorf("%d records, want 3: both disks again", len(all))
	}
}

func TestWhatCannotBeReleased(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	ctx := context.Background()
	refused := func(name string, err error, detail, hint string) {
		t.Helper()
		p := inventory.AsProblem(err)
		if err == nil || p.Code != inventory.CodeConflict || !strings.Contains(p.Detail, detail) ||
			!strings.Contains(p.Hint, hint) {
			t.Errorf("%s: %v (hint %q), want %q, hint %q", name, err, p.Hint, detail, hint)
		}
	}
	_, err := r.now().Release(ctx, "test", "m1", inventory.EraseRequest{})
	refused("an available machine", err, "there is nothing to release", "machine clean m1")
	if _, err := r.now().Clean(ctx, "test", "m1", inventory.EraseRequest{}); err != nil {
		t.Fatal(err)
	}
	r.until(inventory.Available)
	if all := r.erasures(); len(all) != 1 {
		t.Errorf("records after a clean: %+v, want one", all)
	}
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	_, err = r.now().Clean(ctx, "test", "m1", inventory.EraseRequest{})
	refused("cleaning a deployed machine", err, "has a deployed system", "release m1")
	r.mute.Store(true)
	run := r.release(inventory.EraseRequest{})
	_, err = r.now().Release(ctx, "test", "m1", inventory.EraseRequest{})
	refused("twice", err, "is being erased already ("+string(run.ID), "deployment cancel "+string(run.ID))
	_, err = r.now().Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-12", Redeploy: true})
	refused("deploying in the middle", err, "is being erased already", "cancel")
	_, err = r.now().Power(ctx, "test", "m1", power.ActOff)
	refused("power in the middle", err, "is being erased", "cancel")
	// Nothing has been touched: a cancel leaves the system where it is.
	if _, err := r.now().CancelDeployment(ctx, "test", run.ID); err != nil {
		t.Fatal(err)
	}
	m := r.until(inventory.Deployed)
	if m.Deployment == run.ID || !r.now().IssueBoot(testMAC).Local {
		t.Errorf("after the cancel the machine is %+v, want its system back", m)
	}
}

// What a run does to the power replaces what an operator wanted before.
func TestARunReplacesTheWantedPower(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	if p, err := r.now().Power(t.Context(), "test", "m1", power.ActOff); err != nil || p.Wanted != "off" {
		t.Fatalf("power off = %+v, %v", p, err)
	}
	if _, err := r.now().Release(t.Context(), "test", "m1", inventory.EraseRequest{}); err != nil {
		t.Fatal(err)
	}
	if m := r.until(inventory.Available); !m.Power.On || m.Power.Wanted != "on" {
		t.Errorf("after a release that switched it on, its power is %+v, want on, as wanted", m.Power)
	}
}

// What an enrolled machine waits for does not come by waiting: it has to be booted.
func TestReleaseOfAMachineThatNeverBooted(t *testing.T) {
	t.Parallel()
	for state, hint := range map[inventory.State]string{
		inventory.Discovered: "machine approve m1", inventory.Enrolled: "boot it from the network",
		inventory.Inspecting: "wait until it is available",
	} {
		err := Wish{Release: true}.Refused(inventory.Machine{Name: "m1", State: state}, nil)
		if p := inventory.AsProblem(err); p.Detail != "m1 is "+string(state) ||
			!strings.Contains(p.Hint, hint) {
			t.Errorf("release of a machine that is %s: %v (hint: %s), want hint %q", state, err, p.Hint, hint)
		}
	}
}
