package deploy

import (
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power/powertest"
)

// An agent without a driver for the machine's storage controller registers, reports, and finds no disk to
// write to.
func TestWhyThereIsNoDisk(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.disks = nil
	r.pci = []inventory.PCIDevice{
		{Address: "0000:03:00.0", Class: "010400", Vendor: "1000", Device: "10e2", Name: "MegaRAID"},
	}
	r.available()
	const driver = "the agent has no driver for 1000:10e2 Broadcom / LSI MegaRAID"
	why, err := r.now().Why("m1")
	if err != nil || !strings.Contains(why.Sentence, "has no disk to deploy to: "+driver) {
		t.Errorf("before a deployment: %q, %v, want %q", why.Sentence, err, driver)
	}
	if !strings.Contains(why.Next, "pxectl ramdisk build --with") {
		t.Errorf("the next move is %q, want how to put it in", why.Next)
	}
}

// `why` of a MAC that is no machine's tells what its packets show, or that nothing was ever seen of it.
func TestWhyOfAStranger(t *testing.T) {
	t.Parallel()
	const seen, never = inventory.MAC("52:54:00:00:00:31"), "52:54:00:00:00:33"
	r := newRack(t)
	e := r.start()
	for _, mac := range []inventory.MAC{seen, "52:54:00:00:00:32"} {
		e.Note(inventory.Event{
			MAC:  mac,
			Kind: inventory.KindDHCP,
			Text: "DISCOVER of " + string(mac),
			Data: map[string]string{
				"type": "DISCOVER", "class": "bios-pxe", "interface": "eno2", "unconfigured": "yes",
			},
		})
	}
	r.soon("both packets", func() bool {
		all, err := e.Events(0, "", 10)
		return err == nil && len(all) == 2
	})
	d, err := e.Why(string(seen))
	if err != nil || len(d.Evidence) != 1 || d.Evidence[0].MAC != seen {
		t.Errorf("why %s: %+v, %v, want its own packet alone", seen, d, err)
	}
	d, err = e.Why(never)
	if p := inventory.AsProblem(err); err == nil || p.Code != inventory.CodeNotFound ||
		!strings.Contains(p.Detail, "nothing was seen of it") {
		t.Errorf("why of a MAC that was never seen: %+v, %v, want that it is not found", d, err)
	}
}

// An InfiniBand card has no Ethernet address to find its packets by, so `why` of an unknown MAC names the
// card.
func TestWhyOfAnInfiniBandCard(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	_, err := e.Why("52:54:00:00:00:77")
	if p := inventory.AsProblem(err); strings.Contains(p.Detail, "InfiniBand") {
		t.Errorf("before any packet of one: %v", err)
	}
	e.Note(inventory.Event{
		Kind: inventory.KindDHCP, Text: "DISCOVER", Data: map[string]string{inventory.DataInfiniBand: "yes"},
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err = e.Why("52:54:00:00:00:77")
		p := inventory.AsProblem(err)
		if p.Code == inventory.CodeNotFound &&
			strings.Contains(p.Detail, "; an InfiniBand card, which tells no such address, asked to boot ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Why = %v, want the InfiniBand card named", err)
		}
	}
	_, err = e.Why("80:00:00:48:fe:80:00:00:00:00:00:00:24:8a:07:03:00:a1:b2:c3")
	if p := inventory.AsProblem(err); p.Code != inventory.CodeNotFound ||
		!strings.Contains(p.Detail, "is the address of an InfiniBand card") {
		t.Errorf("of such an address: %v", err)
	}
}

// A redeployment that fails before it touched the disk leaves the machine failed, and `why` says what became
// of its system.
func TestWhyOfAFailureThatLeftTheSystem(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.dead.BootAgent = time.Hour // which the test lets pass
	r.available()
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = true })
	r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Failed)
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = false })
	why, err := r.now().Why("m1")
	if err != nil || !strings.Contains(why.Sentence, "m1 failed at validate: ") ||
		!strings.HasSuffix(why.Sentence, " Nothing was done to the machine: its system is as it was.") {
		t.Errorf("why after validate = %q (%v), want that the system is as it was", why.Sentence, err)
	}
	r.mute.Store(true)
	d := r.deploy(inventory.DeployRequest{Redeploy: true})
	for attempt := 1; attempt <= inventory.MaxBoots; attempt++ {
		r.soon("the machine is booted once more", func() bool {
			d, err := r.now().Deployment("m1")
			return err == nil && countSteps(d, inventory.BootAgent) == attempt
		})
		r.acted(inventory.BootAgent)
		r.ahead.Add(int64(time.Hour))
	}
	m := r.until(inventory.Failed)
	why, err = r.now().Why("m1")
	if err != nil || !strings.HasSuffix(why.Sentence,
		" Its disk was not touched: its system is there, but was cut off, "+
			"since the machine was switched off and on for the boot.") {
		t.Errorf("why after boot-agent = %q (%v), want that the system was cut off", why.Sentence, err)
	}
	if m.Interrupted == nil || m.Interrupted.Run != d.ID || !r.now().IssueBoot(testMAC).Local {
		t.Errorf("interrupted %+v, want by %s, and that the machine boots its disk", m.Interrupted, d.ID)
	}
}
