package boltdb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/inventory"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func update(t *testing.T, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func machine(id, name string, macs ...inventory.MAC) inventory.Machine {
	return inventory.Machine{
		ID: inventory.MachineID(id), Name: name, State: inventory.Discovered, MACs: macs,
		CreatedAt: time.Unix(1, 0).UTC(),
	}
}

func TestAMachineSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	want := machine("m-1", "m1", "52:54:00:00:00:01")
	update(t, s, func(tx *Tx) error { return tx.PutMachine(want) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := open(t, path).View(func(tx *Tx) error {
		got, err := tx.Machine("m-1")
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("machine after reopening (-want +got):\n%s", d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamesAndMACsBelongToOneMachine(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-1", "one", "52:54:00:00:00:01")) })
	for name, m := range map[string]inventory.Machine{
		"name": machine("m-2", "one", "52:54:00:00:00:02"),
		"mac":  machine("m-2", "two", "52:54:00:00:00:01"),
	} {
		if err := s.Update(func(tx *Tx) error { return tx.PutMachine(m) }); !errors.Is(err, ErrTaken) {
			t.Errorf("put with a taken %s: %v, want ErrTaken", name, err)
		}
	}
	// A name and a MAC that no machine uses any more are free again.
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-1", "uno", "52:54:00:00:00:09")) })
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-2", "one", "52:54:00:00:00:01")) })
	update(t, s, func(tx *Tx) error { return tx.DeleteMachine("m-2") })
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-3", "one", "52:54:00:00:00:01")) })
}

func TestABMCIsOneMachines(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	at := func(id inventory.MachineID, name, address string) inventory.Machine {
		m := machine(string(id), name)
		m.BMC.Address = address
		return m
	}
	put := func(m inventory.Machine) error { return s.Update(func(tx *Tx) error { return tx.PutMachine(m) }) }
	for _, m := range []inventory.Machine{
		at("m-1", "one", "192.0.2.7"), at("m-1", "one", "192.0.2.7"),
		at("m-2", "two", "192.0.2.7:6230"), at("m-3", "three", ""), at("m-4", "four", ""),
	} {
		if err := put(m); err != nil {
			t.Fatalf("put %s with BMC %q: %v", m.Name, m.BMC.Address, err)
		}
	}
	err := put(at("m-2", "two", "192.0.2.7"))
	if taken, ok := errors.AsType[*Taken](err); !ok || !errors.Is(err, ErrTaken) || taken.By != "one" ||
		taken.What != "BMC 192.0.2.7" {
		t.Errorf("put with a taken BMC: %v, want that it is one's", err)
	}
	// A BMC that no machine uses any more is free again, and so is that of a deleted machine.
	for _, m := range []inventory.Machine{at("m-1", "one", "192.0.2.8"), at("m-2", "two", "192.0.2.7")} {
		if err := put(m); err != nil {
			t.Error(err)
		}
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteMachine("m-2") })
	if err := put(at("m-3", "three", "192.0.2.7")); err != nil {
		t.Error(err)
	}
	// A file with a missing or stale index gets a new one.
	update(t, s, func(tx *Tx) error {
		if err := tx.IndexBMCs(nil); err != nil {
			return err
		}
		all, err := tx.Machines()
		if err != nil {
			return err
		}
		return tx.IndexBMCs(all)
	})
	if err := put(at("m-4", "four", "192.0.2.8")); !errors.Is(err, ErrTaken) {
		t.Errorf("put with a taken BMC, from a new index: %v, want ErrTaken", err)
	}
}

func TestAFailedUpdateLeavesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	boom := errors.New("boom")
	err := s.Update(func(tx *Tx) error {
		if err := tx.PutMachine(machine("m-1", "m1")); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("update: %v", err)
	}
	err = s.View(func(tx *Tx) error { _, err := tx.Machine("m-1"); return err })
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("machine after a failed update: %v, want ErrNotFound", err)
	}
}

func TestTimelineMergesOwnAndEarlierEvents(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	m := machine("m-1", "m1", "52:54:00:00:00:01")
	add := func(owner inventory.MachineID, mac inventory.MAC, text string) {
		update(t, s, func(tx *Tx) error {
			return tx.AppendEvent(&inventory.Event{
				Machine: owner, MAC: mac, Text: text, Wire: strings.Contains(text, "r"),
			})
		})
	}
	add("", "52:54:00:00:00:01", "discover")
	add("", "52:54:00:00:00:99", "a stranger's discover")
	add("m-1", "", "registered")
	add("m-2", "", "another machine")
	add("", "52:54:00:00:00:01", "request")
	add("m-1", "", "approved")
	texts := func(after uint64, limit int) string {
		var out []string
		if err := s.View(func(tx *Tx) error {
			events, err := tx.Timeline(m, after, limit)
			for _, e := range events {
				out = append(out, fmt.Sprintf("%d %s", e.Seq, e.Text))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, ", ")
	}
	if got, want := texts(0, 100), "1 discover, 3 registered, 5 request, 6 approved"; got != want {
		t.Errorf("timeline = %q, want %q", got, want)
	}
	if got, want := texts(3, 1), "5 request"; got != want {
		t.Errorf("timeline after 3, one = %q, want %q", got, want)
	}
}

// Events from the wire displace only events from the wire, of the same machine or of none.
func TestForgedPacketsPushOutNoApproval(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	for _, owner := range []inventory.MachineID{"m-1", ""} {
		many := func(n int, wire bool, what string) {
			update(t, s, func(tx *Tx) error {
				for i := range n {
					if err := tx.AppendEvent(&inventory.Event{
						Machine: owner, MAC: "52:54:00:00:00:01",
						Text: fmt.Sprint(what, i), Wire: wire,
					}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		many(1, false, "approved")
		many(300, true, "a packet")
		many(Unowned+50, true, "another packet")
		many(Recorded+50, false, "recorded")
		many(3, true, "the last packet")
	}
	count := map[string]int{}
	last := map[inventory.MachineID]string{}
	firstRecorded := map[inventory.MachineID]string{}
	if err := s.View(func(tx *Tx) error {
		events, err := tx.Events(0, 1<<20)
		for _, e := range events {
			recorded := strings.HasPrefix(e.Text, "recorded") || strings.HasPrefix(e.Text, "approved")
			count[fmt.Sprint(e.Machine, recorded)]++
			if recorded && firstRecorded[e.Machine] == "" {
				firstRecorded[e.Machine] = e.Text
			}
			last[e.Machine] = e.Text
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{
		"m-1true": Recorded, "m-1false": PerMachine, "true": Recorded,
		"false": Unowned,
	} {
		if count[key] != want {
			t.Errorf("%d events of %q, want %d", count[key], key, want)
		}
	}
	for _, owner := range []inventory.MachineID{"m-1", ""} {
		if last[owner] != "the last packet2" || firstRecorded[owner] != "recorded50" {
			t.Errorf("of %q the first recorded and the last event are %q and %q, "+
				"want those of the quotas' ends", owner, firstRecorded[owner], last[owner])
		}
	}
	// The machine's timeline has both, in order, and the earlier events of its MAC.
	if err := s.View(func(tx *Tx) error {
		events, err := tx.Timeline(machine("m-1", "m1", "52:54:00:00:00:01"), 0, 1<<20)
		if want := 2*Recorded + PerMachine + Unowned; len(events) != want {
			t.Errorf("the timeline has %d events, want %d", len(events), want)
		}
		for i := 1; i < len(events); i++ {
			if events[i].Seq <= events[i-1].Seq {
				t.Fatalf("event %d comes before %d", events[i-1].Seq, events[i].Seq)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteMachine("m-1") })
	if err := s.View(func(tx *Tx) error {
		events, err := tx.Events(0, 1<<20)
		if len(events) != Recorded+Unowned {
			t.Errorf("%d events are left after the machine, want those that are nobody's", len(events))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedFilesAreErrorsThatSaySo(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	s := open(t, good)
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-1", "m1-needle")) })
	s.Close()
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, b := range map[string][]byte{
		"text":      []byte("this is not a database"),
		"truncated": raw[:2*os.Getpagesize()],
		"short":     raw[:5000],
		"zeroed":    make([]byte, len(raw)),
	} {
		if s, err := Open(write(name, b)); err == nil {
			s.Close()
			t.Errorf("%s file opened without an error", name)
		} else if hint := inventory.AsProblem(err).Hint; !strings.Contains(err.Error(), name) ||
			!strings.Contains(hint, name+" away and begin anew with `pxectl serve --new-database`") {
			t.Errorf("%s file: %v, want the path and the next move", name, err)
		}
	}

	// bbolt does not notice a flipped bit in a value; the checksum does.
	flipped := []byte(strings.ReplaceAll(string(raw), `"name":"m1-needle"`, `"name":"m1-needlf"`))
	s = open(t, write("flipped", flipped))
	err = s.View(func(tx *Tx) error { _, err := tx.Machine("m-1"); return err })
	if err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("flipped bit in a record: %v, want a checksum error", err)
	}
}

func TestASecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another pxectl") ||
		inventory.AsProblem(err).Hint == "" {
		t.Errorf("second open: %v, want the reason", err)
	}
}
