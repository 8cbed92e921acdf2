package deploy

import (
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// The agent of a machine whose storage controller it cannot drive: it registers, reports, and finds nothing
// to write to.
func TestWhyThereIsNoDisk(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.disks = nil
	r.pci = []inventory.PCIDevice{{Address: "0000:03:00.0", Class: "010400", Vendor: "1000", Device: "10e2", Name: "MegaRAID"}}
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

// A MAC that is no machine's has the story of its own packets, and none when nothing was ever seen of it.
func TestWhyOfAStranger(t *testing.T) {
	t.Parallel()
	const seen, never = inventory.MAC("52:54:00:00:00:31"), "52:54:00:00:00:33"
	r := newRack(t)
	e := r.start()
	for _, mac := range []inventory.MAC{seen, "52:54:00:00:00:32"} {
		e.Note(inventory.Event{MAC: mac, Kind: inventory.KindDHCP, Text: "DISCOVER of " + string(mac), Data: map[string]string{"type": "DISCOVER", "class": "bios-pxe", "interface": "eno2", "unconfigured": "yes"}})
	}
	r.soon("both packets", func() bool { all, err := e.Events(0, "", 10); return err == nil && len(all) == 2 })
	d, err := e.Why(string(seen))
	if err != nil || len(d.Evidence) != 1 || d.Evidence[0].MAC != seen {
		t.Errorf("why %s: %+v, %v, want its own packet alone", seen, d, err)
	}
	d, err = e.Why(never)
	if p := inventory.AsProblem(err); err == nil || p.Code != inventory.CodeNotFound || !strings.Contains(p.Detail, "nothing was seen of it") {
		t.Errorf("why of a MAC that was never seen: %+v, %v, want that it is not found", d, err)
	}
}

// An InfiniBand card has no Ethernet address that its packets could be found by: why names it where somebody
// looks for the machine.
func TestWhyOfAnInfiniBandCard(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	_, err := e.Why("52:54:00:00:00:77")
	if p := inventory.AsProblem(err); strings.Contains(p.Detail, "InfiniBand") {
		t.Errorf("before any packet of one: %v", err)
	}
	e.Note(inventory.Event{Kind: inventory.KindDHCP, Text: "DISCOVER", Data: map[string]string{inventory.DataInfiniBand: "yes"}})
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, err = e.Why("52:54:00:00:00:77")
		p := inventory.AsProblem(err)
		if p.Code == inventory.CodeNotFound && strings.Contains(p.Detail, "; an InfiniBand card, which tells no such address, asked to boot ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Why = %v, want the InfiniBand card named", err)
		}
	}
	_, err = e.Why("80:00:00:48:fe:80:00:00:00:00:00:00:24:8a:07:03:00:a1:b2:c3")
	if p := inventory.AsProblem(err); p.Code != inventory.CodeNotFound || !strings.Contains(p.Detail, "is the address of an InfiniBand card") {
		t.Errorf("of such an address: %v", err)
	}
}
