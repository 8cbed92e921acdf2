package timeline

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// newTimeline returns a timeline with a store of its own. Nothing runs it: tests call commit, as Run does
// five times a second.
func newTimeline(t *testing.T) (*Timeline, *boltdb.Store) {
	t.Helper()
	store, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return New(store, slog.New(slog.DiscardHandler), 0, func(mac inventory.MAC) inventory.MachineID {
		if mac == testMAC {
			return "m-1"
		}
		return ""
	}), store
}

func commit(t *testing.T, tl *Timeline) {
	t.Helper()
	if err := tl.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Dropped events are logged once a minute, and once more at the stop: floods go on for days.
func TestDroppedEventsAreSaidOnceAMinute(t *testing.T) {
	tl, _ := newTimeline(t)
	var log bytes.Buffer
	tl.log = slog.New(slog.NewTextHandler(&log, nil))
	now := noon
	tl.now = func() time.Time { return now }
	for range 500 { // 100 s
		tl.lost.Add(1)
		commit(t, tl)
		now = now.Add(tickEvery)
	}
	if err := tl.Drain(); err != nil {
		t.Fatal(err)
	}
	var told []string
	for line := range strings.Lines(log.String()) {
		told = append(told, strings.TrimSpace(line[strings.LastIndex(line, "=")+1:]))
	}
	if got := strings.Join(told, ", "); got != "1, 300, 199" {
		t.Errorf("500 losses within 100 s are told of as %s, want 1, 300, 199", got)
	}
}

// stored lists the texts of the events in the store, with their counts.
func stored(t *testing.T, store *boltdb.Store) string {
	t.Helper()
	var out []string
	err := store.View(func(tx *boltdb.Tx) error {
		events, err := tx.Events(0, 1<<20)
		for _, e := range events {
			line := e.Text
			if e.Count > 1 {
				line += fmt.Sprintf(" ×%d in %s", e.Count, e.At.Sub(e.Since))
			}
			out = append(out, line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "; ")
}

const testMAC = inventory.MAC("52:54:00:00:00:01")

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func packet(mac inventory.MAC, second int, text string) inventory.Event {
	return inventory.Event{
		At:   noon.Add(time.Duration(second) * time.Second),
		MAC:  mac,
		Kind: inventory.KindDHCP,
		Text: text,
		Wire: true,
	}
}

func TestRepeatsAreCountedAndNotKept(t *testing.T) {
	const stranger = inventory.MAC("52:54:00:00:00:99")
	for name, c := range map[string]struct {
		noted []inventory.Event
		want  string
	}{
		"different packets": {
			[]inventory.Event{packet(testMAC, 0, "DISCOVER"), packet(testMAC, 1, "REQUEST")},
			"DISCOVER; REQUEST",
		},
		"a loop": {
			[]inventory.Event{
				packet(testMAC, 0, "DISCOVER"), packet(testMAC, 1, "REQUEST"),
				packet(testMAC, 10, "DISCOVER"), packet(testMAC, 11, "REQUEST"),
				packet(testMAC, 20, "DISCOVER"),
			},
			"REQUEST ×2 in 10s; DISCOVER ×3 in 20s",
		},
		"two that say the same": {
			[]inventory.Event{
				packet(testMAC, 0, "DISCOVER"), packet(stranger, 1, "DISCOVER"),
				packet(testMAC, 2, "DISCOVER"),
			},
			"DISCOVER; DISCOVER ×2 in 2s",
		},
	} {
		for _, batches := range []string{"in one commit", "in a commit each"} {
			t.Run(name+" "+batches, func(t *testing.T) {
				tl, store := newTimeline(t)
				for _, e := range c.noted {
					tl.Note(e)
					if batches == "in a commit each" {
						commit(t, tl)
					}
				}
				commit(t, tl)
				if got := stored(t, store); got != c.want {
					t.Errorf("the store has %q, want %q", got, c.want)
				}
			})
		}
	}
}

// Days of a boot loop cost three events, and what happened before is still there.
func TestALoopPushesNothingOut(t *testing.T) {
	tl, store := newTimeline(t)
	tl.Note(packet(testMAC, 0, "what went wrong"))
	for i := range 3 * boltdb.PerMachine {
		tl.Note(packet(testMAC, i, []string{"DISCOVER", "REQUEST", "snponly.efi: no such file"}[i%3]))
		if i%500 == 0 {
			commit(t, tl)
		}
	}
	commit(t, tl)
	if got, want := stored(t, store), "what went wrong; DISCOVER ×2000 in 1h39m57s; "+
		"REQUEST ×2000 in 1h39m57s; snponly.efi: no such file ×2000 in 1h39m57s"; got != want {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

// What the worker writes between two boots keeps their packets apart.
func TestTheNextBootStandsForItself(t *testing.T) {
	tl, store := newTimeline(t)
	tl.Note(packet(testMAC, 0, "DISCOVER"))
	commit(t, tl)
	proof := inventory.Event{Machine: "m-1", Kind: inventory.KindAgent, Text: "registered"}
	if err := store.Update(func(tx *boltdb.Tx) error { return tx.AppendEvent(&proof) }); err != nil {
		t.Fatal(err)
	}
	tl.EndRepeats("m-1", proof.Seq)
	for i := range 2 {
		tl.Note(packet(testMAC, 60+i, "DISCOVER"))
		commit(t, tl)
	}
	if got, want := stored(t, store), "DISCOVER; registered; DISCOVER ×2 in 1s"; got != want {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

func TestACommitThatFailsLosesNothing(t *testing.T) {
	tl, store := newTimeline(t)
	tl.Note(packet(testMAC, 0, "DISCOVER"))
	commit(t, tl)
	good := tl.store
	broken, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil { // every transaction of a closed store fails
		t.Fatal(err)
	}
	tl.store = broken
	for i := range 5 {
		tl.Note(packet(testMAC, 1+i, []string{"DISCOVER", "REQUEST"}[i%2]))
		if err := tl.commit(t.Context()); err == nil {
			t.Fatal("commit() to a closed store = nil, want an error")
		}
	}
	tl.store = good
	commit(t, tl)
	if got, want := stored(t, store), "REQUEST ×2 in 2s; DISCOVER ×4 in 5s"; got != want {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

func TestEventsOfATransaction(t *testing.T) {
	many := make([]inventory.Event, 300)
	for i := range many {
		many[i] = inventory.Event{Kind: inventory.KindAgent, Text: fmt.Sprint(i)}
	}
	for _, c := range []struct {
		n    int
		last string
		want int
	}{
		{0, "", 0},
		{1, "0", 1},
		{PerTransaction, "49", PerTransaction},
		{PerTransaction + 1, "… and 2 more that are not kept", PerTransaction},
		{300, "… and 251 more that are not kept", PerTransaction},
	} {
		got := AtMost(PerTransaction, many[:c.n])
		if len(got) != c.want || len(got) > 0 && got[len(got)-1].Text != c.last {
			t.Errorf("AtMost(%d events) = %d, the last %q; want %d and %q", c.n, len(got),
				got[len(got)-1].Text, c.want, c.last)
		}
	}
	if many[PerTransaction-1].Text != "49" {
		t.Error("AtMost wrote into what it was given")
	}
}

// An event that makes the timeline panic is dropped and counted. Later ones are written.
func TestAnEventOverWhichTheTimelinePanics(t *testing.T) {
	const evil = inventory.MAC("52:54:00:00:00:66")
	tl, store := newTimeline(t)
	armed := false
	tl.owner = func(mac inventory.MAC) inventory.MachineID {
		if armed && mac == evil {
			panic("index out of range")
		}
		return "m-1"
	}
	tl.Note(packet(evil, 0, "DISCOVER"))
	armed = true
	if err := tl.commit(t.Context()); err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("commit = %v, want the panic as an error", err)
	}
	tl.Note(packet(testMAC, 1, "REQUEST"))
	commit(t, tl)
	if got := stored(t, store); got != "REQUEST" || tl.Dropped() != 1 {
		t.Errorf("the store has %q, %d dropped; want REQUEST, 1", got, tl.Dropped())
	}
}
