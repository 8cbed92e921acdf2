package timeline

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// The memory of repeats is bounded, whatever a flood invents.
func TestAFloodOfStrangersIsBounded(t *testing.T) {
	tl, _ := newTimeline(t)
	for i := range 3 * maxRepeatOwners {
		e := packet(inventory.MAC(fmt.Sprintf("52:54:01:%02x:%02x:%02x", i>>16, i>>8&255, i&255)), i,
			"DISCOVER")
		e.Seq = uint64(i)
		tl.repeats.keep(&e)
	}
	for i := range 3 * maxRepeatKeys {
		e := packet(testMAC, i, fmt.Sprint("file ", i))
		tl.repeats.keep(&e)
	}
	if n := len(tl.repeats.owners); n > maxRepeatOwners {
		t.Errorf("%d owners are remembered, want at most %d", n, maxRepeatOwners)
	}
	if n := len(tl.repeats.owners[string(testMAC)].events); n > maxRepeatKeys {
		t.Errorf("%d events of one owner are remembered, want at most %d", n, maxRepeatKeys)
	}
	tl.Note(inventory.Event{
		MAC:  testMAC,
		Wire: true,
		Text: strings.Repeat("é", maxText),
		Data: map[string]string{"path": strings.Repeat("x", 10*maxDatum), "a": "b"},
	})
	got := <-tl.queue
	if len(got.Text) > maxText || len(got.Data["path"]) > maxDatum || got.Data["a"] != "b" {
		t.Errorf("noted %d bytes of text and %d of data, want at most %d and %d", len(got.Text),
			len(got.Data["path"]), maxText, maxDatum)
	}
}

// strangerSays is a packet of a MAC that is no machine's.
func strangerSays(i int, text string) inventory.Event {
	return packet(inventory.MAC(fmt.Sprintf("52:54:02:%02x:%02x:%02x", i>>16, i>>8&255, i&255)), i, text)
}

// Packets of many strangers are written once a second, and only the newest. They displace no machine's
// packet.
func TestAFloodOfStrangersWaits(t *testing.T) {
	tl, store := newTimeline(t)
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	const n = 3 * strangersKept
	for i := range n {
		tl.Note(strangerSays(i, fmt.Sprint("DISCOVER ", i)))
	}
	for i := range batchSize {
		tl.Note(packet(testMAC, i, fmt.Sprint("REQUEST ", i)))
	}
	commit(t, tl)
	if got := strings.Split(stored(t, store), "; "); len(got) != batchSize || got[0] != "REQUEST 0" {
		t.Errorf("at the first tick %d events are in the store, beginning with %q; want the %d of the machine",
			len(got), got[0], batchSize)
	}
	tl.now = func() time.Time { return noon.Add(strangersEvery) }
	commit(t, tl)
	got := strings.Split(stored(t, store), "; ")[batchSize:]
	if first := fmt.Sprint("DISCOVER ", n-strangersKept); len(got) != strangersKept || got[0] != first {
		t.Errorf("a second later %d events of strangers are in the store, beginning with %q; want %d from %q on",
			len(got), got[0], strangersKept, first)
	}
	if n := tl.Dropped(); n != 0 {
		t.Errorf("%d events were dropped, want none", n)
	}
}

// While the store cannot be written, no stranger's event is lost that would have been written.
func TestStrangersOutliveABrokenStore(t *testing.T) {
	tl, store := newTimeline(t)
	broken, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	tl.store = broken
	tl.Note(packet(testMAC, 0, "REQUEST"))
	for i := range 2 * strangersQueue {
		tl.Note(strangerSays(i, fmt.Sprint("DISCOVER ", i)))
		if i%strangersQueue == strangersQueue/2 {
			if err := tl.commit(t.Context()); err == nil {
				t.Fatal("commit() to a closed store = nil, want an error")
			}
		}
	}
	tl.store = store
	commit(t, tl)
	tl.wrote = time.Time{} // a second later
	commit(t, tl)
	got := strings.Split(stored(t, store), "; ")
	// The events that were being written when it broke, and the newest since.
	if last := fmt.Sprint("DISCOVER ", 2*strangersQueue-1); len(got) != 1+2*strangersKept ||
		got[0] != "REQUEST" || got[len(got)-1] != last || tl.Dropped() != 0 {
		t.Errorf("%d events are in the store, from %q to %q, and %d were dropped; want REQUEST and %d up to %q",
			len(got), got[0], got[len(got)-1], tl.Dropped(), 2*strangersKept, last)
	}
}

func TestOneStrangerPushesNobodyOut(t *testing.T) {
	tl, store := newTimeline(t)
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	tl.Note(strangerSays(1, "DISCOVER"))
	for range 2 * strangersKept {
		tl.Note(strangerSays(2, "DISCOVER"))
	}
	tl.Note(strangerSays(2, "REQUEST"))
	commit(t, tl)
	if got, want := stored(t, store), fmt.Sprintf("DISCOVER; DISCOVER ×%d in 0s; REQUEST",
		2*strangersKept); got != want {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

// A stranger that becomes a machine in the middle of a flood has its packets in their order.
func TestAStrangerThatBecomesAMachine(t *testing.T) {
	tl, store := newTimeline(t)
	owner := tl.owner
	tl.owner = func(inventory.MAC) inventory.MachineID { return "" }
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	tl.Note(packet(testMAC, 0, "DISCOVER"))
	for i := range 2 * fewStrangers {
		tl.Note(strangerSays(i, "DISCOVER of a stranger"))
	}
	commit(t, tl)
	tl.owner = owner
	tl.Note(packet(testMAC, 1, "REQUEST"))
	commit(t, tl)
	if got, want := stored(t, store), "DISCOVER; REQUEST"; got != want {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

func BenchmarkStrangers(b *testing.B) {
	store, err := boltdb.Open(filepath.Join(b.TempDir(), "db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	tl := New(store, slog.New(slog.DiscardHandler), 0, func(inventory.MAC) inventory.MachineID { return "" })
	b.ReportAllocs()
	for i := range b.N { // 20,000 packets a second
		e := strangerSays(i, "DISCOVER from other on port 67: OFFER 10.90.64.1")
		e.Data = map[string]string{
			"type":      "DISCOVER",
			"class":     "other",
			"port":      "67",
			"interface": "eth0",
			"answer":    "OFFER",
		}
		tl.Note(e)
		if i%4000 == 3999 {
			if i%20000 == 19999 {
				tl.wrote = time.Time{}
			}
			if err := tl.commit(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What the appliance itself did is on the timeline, however much comes from the wire, also what belongs to no
// machine.
func TestAFloodDropsNothingOfOurOwn(t *testing.T) {
	for name, mac := range map[string]inventory.MAC{"of a machine": testMAC, "of strangers": ""} {
		t.Run(name, func(t *testing.T) {
			tl, store := newTimeline(t)
			const own = 200
			for i := range own {
				for n := range 200 {
					e := strangerSays(200*i+n, fmt.Sprint("packet ", i, " ", n))
					if mac != "" {
						e.MAC = mac
					}
					tl.Note(e)
				}
				tl.Note(inventory.Event{
					At: noon, Kind: inventory.KindInterface, Text: fmt.Sprint("own ", i), MAC: mac,
				})
			}
			commit(t, tl)
			told := stored(t, store)
			for i := range own {
				if !strings.Contains(told, fmt.Sprint("own ", i)) {
					t.Fatalf("event %d of our own is not on the timeline", i)
				}
			}
		})
	}
}
