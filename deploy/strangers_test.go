package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

func TestRoomForAStranger(t *testing.T) {
	// some returns n strangers from an address. The first was heard of ago before noon, each next one a
	// second later.
	some := func(n int, from string, ago time.Duration) (all []stranger) {
		for i := range n {
			all = append(all, stranger{from: from, heard: noon.Add(-ago + time.Duration(i)*time.Second)})
		}
		return all
	}
	each := func(n int, ago time.Duration) (all []stranger) {
		for i := range n {
			all = append(all, some(1, fmt.Sprint("10.0.0.", i), ago)...)
		}
		return all
	}
	calls := 20 * time.Second
	for _, c := range []struct {
		name    string
		all     []stranger
		goes    string // address of the one that goes; "" when there is room
		ago     time.Duration
		refused string
	}{
		{"nobody is there", nil, "", 0, ""},
		{"some are there", some(StrangersPerAddress-1, "us", calls), "", 0, ""},
		{
			"an address has its part", some(StrangersPerAddress, "us", 2*time.Minute), "", 0,
			"64 machines that registered from us",
		},
		{
			"an address has its part, and some are silent", some(StrangersPerAddress, "us", time.Hour), "us",
			time.Hour, "",
		},
		{
			"another address has its part, and some are silent", some(StrangersPerAddress, "them", time.Hour),
			"", 0, "",
		},
		{
			"all places are taken, and some are silent",
			append(each(MaxStrangers-1, calls), some(1, "them", time.Hour)...), "them", time.Hour, "",
		},
		{
			"all places are taken, and some are silent for long",
			append(append(each(MaxStrangers-2, calls), some(1, "old", 9*time.Hour)...),
				some(1, "them", time.Hour)...), "old", 9 * time.Hour, "",
		},
		{
			"all places are taken by few addresses",
			append(each(MaxStrangers-40, calls), some(40, "them", 2*time.Minute)...), "them", 2 * time.Minute,
			"",
		},
		{"all places are taken by an address each", each(MaxStrangers, calls), "10.0.0.0", calls, ""},
		{
			"all places are taken, most of them by who asks",
			append(some(20, "us", calls), each(MaxStrangers-20, calls)...), "", 0,
			"2000 machines wait for approval already, none of them silent",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			goes, err := makeRoom(c.all, "us", noon)
			switch {
			case c.refused != "":
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("makeRoom() = %v, %v, want that it refuses with %q", goes, err, c.refused)
				}
			case err != nil:
				t.Errorf("makeRoom(): %v", err)
			case (goes == nil) != (c.goes == ""):
				t.Errorf("makeRoom() = %+v, want from %q", goes, c.goes)
			case goes != nil && c.goes != "10.0.0.0" &&
				(goes.from != c.goes || noon.Sub(goes.heard) != c.ago):
				t.Errorf("makeRoom() = from %s, silent for %v, want from %s, silent for %v", goes.from,
					noon.Sub(goes.heard), c.goes, c.ago)
			}
		})
	}
}

// registers plays an agent up to its first call.
func registers(t *testing.T, e *Engine, mac inventory.MAC, ip string) (nonce string, err error) {
	t.Helper()
	nonce = e.IssueBoot(mac).Nonce
	_, err = e.Register(t.Context(), agentAt(nonce, ip), inventory.Registration{
		MAC: mac, BootID: bootIDOf(string(mac)),
	})
	return nonce, err
}

func TestSilentStrangersExpire(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	const silent, calls, approved = inventory.MAC("52:54:00:00:00:0a"), inventory.MAC("52:54:00:00:00:0b"),
		inventory.MAC("52:54:00:00:00:0c")
	nonces := map[inventory.MAC]string{}
	for _, mac := range []inventory.MAC{silent, calls, approved} {
		nonce, err := registers(t, e, mac, "192.0.2.7")
		if err != nil {
			t.Fatal(err)
		}
		nonces[mac] = nonce
	}
	if _, err := e.Approve(t.Context(), "test", string(approved), Approval{}); err != nil {
		t.Fatal(err)
	}
	r.ahead.Store(int64(strangerLife - time.Minute))
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it asks, and does not wait
	_, _ = e.Next(ctx, agentAt(nonces[calls], "192.0.2.7"), inventory.Ask{BootID: bootIDOf(string(calls))})
	e.expire(t.Context())
	if n := len(e.Machines()); n != 3 {
		t.Fatalf("%d machines are there a minute early, want 3", n)
	}
	r.ahead.Store(int64(strangerLife + time.Minute))
	e.expire(t.Context())
	if _, err := e.Machine(string(silent)); err == nil {
		t.Error("a silent stranger is still there")
	}
	for _, mac := range []inventory.MAC{calls, approved} {
		if _, err := e.Machine(string(mac)); err != nil {
			t.Errorf("%s: %v", mac, err)
		}
	}
	found := false
	events, err := e.Events(0, "", 1000)
	for _, ev := range events {
		found = found || ev.MAC == silent &&
			strings.Contains(ev.Text, "not heard of for 72 hours while it waited for approval: forgotten")
	}
	if err != nil || !found {
		t.Errorf("no event tells of it, %v: %+v", err, events)
	}
	if _, err := registers(t, e, silent, "192.0.2.7"); err != nil {
		t.Errorf("it boots again: %v", err)
	}
}

// A flood from few addresses leaves room for a machine from another.
func TestStrangersOfOneAddress(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	mac := func(i int) inventory.MAC {
		return inventory.MAC(fmt.Sprintf("52:54:77:00:%02x:%02x", i>>8, i&255))
	}
	for i := range StrangersPerAddress {
		if _, err := registers(t, e, mac(i), "192.0.2.66"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := registers(t, e, mac(1000), "192.0.2.66")
	asProblem(t, "one more from that address", err, inventory.CodeConflict,
		"64 machines that registered from 192.0.2.66 wait", "machine delete --discovered")
	if _, err := registers(t, e, mac(1001), "192.0.2.7"); err != nil {
		t.Errorf("a machine from another address: %v", err)
	}
	n, err := e.DeleteDiscovered(t.Context(), "test")
	if n != StrangersPerAddress+1 || err != nil || len(e.Machines()) != 0 {
		t.Errorf("DeleteDiscovered() = %d, %v, and %d machines are left; want %d and none", n, err,
			len(e.Machines()), StrangersPerAddress+1)
	}
}

// Under PolicyAuto, one address registers no more machines than StrangersPerAddress.
func TestStrangersThatAreLetIn(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.policy = PolicyAuto
	e := r.start()
	mac := func(i int) inventory.MAC {
		return inventory.MAC(fmt.Sprintf("52:54:77:00:%02x:%02x", i>>8, i&255))
	}
	for i := range StrangersPerAddress {
		if _, err := registers(t, e, mac(i), "192.0.2.66"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := registers(t, e, mac(1000), "192.0.2.66")
	asProblem(t, "one more from that address", err, inventory.CodeConflict,
		"64 machines registered from 192.0.2.66 already", "pxectl machine delete")
	if _, err := registers(t, e, mac(1001), "192.0.2.7"); err != nil {
		t.Errorf("a machine from another address: %v", err)
	}
	if n := len(e.Machines()); n != StrangersPerAddress+1 {
		t.Errorf("there are %d machines, want %d", n, StrangersPerAddress+1)
	}
}
