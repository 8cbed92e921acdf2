package deploy

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
	"github.com/pxectl/pxectl/power"
)

// A recorder over a store of its own. It is driven by hand: commit is what its loop does five times a second.
func newRecorder(t *testing.T) (*timeline, *boltdb.Store) {
	t.Helper()
	store, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return newTimeline(store, slog.New(slog.DiscardHandler), 0, func(mac inventory.MAC) inventory.MachineID {
		if mac == testMAC {
			return "m-1"
		}
		return ""
	}), store
}

func commit(t *testing.T, tl *timeline) {
	t.Helper()
	if err := tl.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// story is what the store tells, a line each.
func story(t *testing.T, store *boltdb.Store) string {
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

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func packet(mac inventory.MAC, second int, text string) inventory.Event {
	return inventory.Event{At: noon.Add(time.Duration(second) * time.Second), MAC: mac, Kind: "dhcp", Text: text, Wire: true}
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
			[]inventory.Event{packet(testMAC, 0, "DISCOVER"), packet(testMAC, 1, "REQUEST"), packet(testMAC, 10, "DISCOVER"), packet(testMAC, 11, "REQUEST"), packet(testMAC, 20, "DISCOVER")},
			"REQUEST ×2 in 10s; DISCOVER ×3 in 20s",
		},
		"two that say the same": {
			[]inventory.Event{packet(testMAC, 0, "DISCOVER"), packet(stranger, 1, "DISCOVER"), packet(testMAC, 2, "DISCOVER")},
			"DISCOVER; DISCOVER ×2 in 2s",
		},
	} {
		for _, batches := range []string{"in one commit", "in a commit each"} {
			t.Run(name+" "+batches, func(t *testing.T) {
				tl, store := newRecorder(t)
				for _, e := range c.noted {
					tl.note(e)
					if batches == "in a commit each" {
						commit(t, tl)
					}
				}
				commit(t, tl)
				if got := story(t, store); got != c.want {
					t.Errorf("the store tells %q, want %q", got, c.want)
				}
			})
		}
	}
}

// Days of a boot loop cost three events, and what happened before is still there.
func TestALoopPushesNothingOut(t *testing.T) {
	tl, store := newRecorder(t)
	tl.note(packet(testMAC, 0, "what went wrong"))
	for i := range 3 * boltdb.PerMachine {
		tl.note(packet(testMAC, i, []string{"DISCOVER", "REQUEST", "snponly.efi: no such file"}[i%3]))
		if i%500 == 0 {
			commit(t, tl)
		}
	}
	commit(t, tl)
	if got, want := story(t, store), "what went wrong; DISCOVER ×2000 in 1h39m57s; REQUEST ×2000 in 1h39m57s; snponly.efi: no such file ×2000 in 1h39m57s"; got != want {
		t.Errorf("the store tells %q, want %q", got, want)
	}
}

// What the worker writes between two boots keeps their packets apart.
func TestTheNextBootStandsForItself(t *testing.T) {
	tl, store := newRecorder(t)
	tl.note(packet(testMAC, 0, "DISCOVER"))
	commit(t, tl)
	proof := inventory.Event{Machine: "m-1", Kind: "agent", Text: "registered"}
	if err := store.Update(func(tx *boltdb.Tx) error { return tx.AppendEvent(&proof) }); err != nil {
		t.Fatal(err)
	}
	tl.happened("m-1", proof.Seq)
	for i := range 2 {
		tl.note(packet(testMAC, 60+i, "DISCOVER"))
		commit(t, tl)
	}
	if got, want := story(t, store), "DISCOVER; registered; DISCOVER ×2 in 1s"; got != want {
		t.Errorf("the store tells %q, want %q", got, want)
	}
}

func TestACommitThatFailsLosesNothing(t *testing.T) {
	tl, store := newRecorder(t)
	tl.note(packet(testMAC, 0, "DISCOVER"))
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
		tl.note(packet(testMAC, 1+i, []string{"DISCOVER", "REQUEST"}[i%2]))
		if err := tl.commit(t.Context()); err == nil {
			t.Fatal("commit() to a closed store = nil, want an error")
		}
	}
	tl.store = good
	commit(t, tl)
	if got, want := story(t, store), "REQUEST ×2 in 2s; DISCOVER ×4 in 5s"; got != want {
		t.Errorf("the store tells %q, want %q", got, want)
	}
}

// The memory of what was said is bounded, whatever a flood invents.
func TestAFloodOfStrangersIsBounded(t *testing.T) {
	tl, _ := newRecorder(t)
	for i := range 3 * maxRepeatOwners {
		e := packet(inventory.MAC(fmt.Sprintf("52:54:01:%02x:%02x:%02x", i>>16, i>>8&255, i&255)), i, "DISCOVER")
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
	if n := len(tl.repeats.owners[string(testMAC)].said); n > maxRepeatKeys {
		t.Errorf("%d sayings of one owner are remembered, want at most %d", n, maxRepeatKeys)
	}
	tl.note(inventory.Event{MAC: testMAC, Text: strings.Repeat("é", maxText), Data: map[string]string{"path": strings.Repeat("x", 10*maxDatum), "a": "b"}})
	got := <-tl.queue
	if len(got.Text) > maxText || len(got.Data["path"]) > maxDatum || got.Data["a"] != "b" {
		t.Errorf("noted %d bytes of text and %d of data, want at most %d and %d", len(got.Text), len(got.Data["path"]), maxText, maxDatum)
	}
}

// strangerSays is a packet of a MAC that is no machine's.
func strangerSays(i int, text string) inventory.Event {
	return packet(inventory.MAC(fmt.Sprintf("52:54:02:%02x:%02x:%02x", i>>16, i>>8&255, i&255)), i, text)
}

// What a flood of strangers says is written once a second, the newest of it, and it displaces no machine's packet.
func TestAFloodOfStrangersWaits(t *testing.T) {
	tl, store := newRecorder(t)
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	const n = 3 * strangersKept
	for i := range n {
		tl.note(strangerSays(i, fmt.Sprint("DISCOVER ", i)))
	}
	for i := range timelineBatch {
		tl.note(packet(testMAC, i, fmt.Sprint("REQUEST ", i)))
	}
	commit(t, tl)
	if got := strings.Split(story(t, store), "; "); len(got) != timelineBatch || got[0] != "REQUEST 0" {
		t.Errorf("at the first tick %d events are in the store, beginning with %q; want the %d of the machine", len(got), got[0], timelineBatch)
	}
	tl.now = func() time.Time { return noon.Add(strangersEvery) }
	commit(t, tl)
	got := strings.Split(story(t, store), "; ")[timelineBatch:]
	if first := fmt.Sprint("DISCOVER ", n-strangersKept); len(got) != strangersKept || got[0] != first {
		t.Errorf("a second later %d events of strangers are in the store, beginning with %q; want %d from %q on", len(got), got[0], strangersKept, first)
	}
	if n := tl.dropped.Load(); n != 0 {
		t.Errorf("%d events were dropped, want none", n)
	}
}

// A store that cannot be written costs no stranger that would have been written.
func TestStrangersOutliveABrokenStore(t *testing.T) {
	tl, store := newRecorder(t)
	broken, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	tl.store = broken
	tl.note(packet(testMAC, 0, "REQUEST"))
	for i := range 2 * strangersQueue {
		tl.note(strangerSays(i, fmt.Sprint("DISCOVER ", i)))
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
	got := strings.Split(story(t, store), "; ")
	// What was being written when it broke, and the newest since.
	if last := fmt.Sprint("DISCOVER ", 2*strangersQueue-1); len(got) != 1+2*strangersKept || got[0] != "REQUEST" || got[len(got)-1] != last || tl.dropped.Load() != 0 {
		t.Errorf("%d events are in the store, from %q to %q, and %d were dropped; want REQUEST and %d up to %q", len(got), got[0], got[len(got)-1], tl.dropped.Load(), 2*strangersKept, last)
	}
}

func TestOneStrangerPushesNobodyOut(t *testing.T) {
	tl, store := newRecorder(t)
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	tl.note(strangerSays(1, "DISCOVER"))
	for range 2 * strangersKept {
		tl.note(strangerSays(2, "DISCOVER"))
	}
	tl.note(strangerSays(2, "REQUEST"))
	commit(t, tl)
	if got, want := story(t, store), fmt.Sprintf("DISCOVER; DISCOVER ×%d in 0s; REQUEST", 2*strangersKept); got != want {
		t.Errorf("the store tells %q, want %q", got, want)
	}
}

// A stranger that becomes a machine in the middle of a flood has its packets in their order.
func TestAStrangerThatBecomesAMachine(t *testing.T) {
	tl, store := newRecorder(t)
	owner := tl.owner
	tl.owner = func(inventory.MAC) inventory.MachineID { return "" }
	tl.now = func() time.Time { return noon }
	tl.wrote = noon
	tl.note(packet(testMAC, 0, "DISCOVER"))
	for i := range 2 * fewStrangers {
		tl.note(strangerSays(i, "DISCOVER of a stranger"))
	}
	commit(t, tl)
	tl.owner = owner
	tl.note(packet(testMAC, 1, "REQUEST"))
	commit(t, tl)
	if got, want := story(t, store), "DISCOVER; REQUEST"; got != want {
		t.Errorf("the store tells %q, want %q", got, want)
	}
}

func BenchmarkStrangers(b *testing.B) {
	store, err := boltdb.Open(filepath.Join(b.TempDir(), "db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	tl := newTimeline(store, slog.New(slog.DiscardHandler), 0, func(inventory.MAC) inventory.MachineID { return "" })
	b.ReportAllocs()
	for i := range b.N { // 20,000 packets a second
		e := strangerSays(i, "DISCOVER from other on port 67: OFFER 10.90.64.1")
		e.Data = map[string]string{"type": "DISCOVER", "class": "other", "port": "67", "interface": "eth0", "answer": "OFFER"}
		tl.note(e)
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

// A lingering BMC answers some time after the call was given up.
type lingering struct {
	power.BMC
	asked chan struct{}
}

func (l lingering) Do(ctx context.Context, _ power.Action) error {
	l.asked <- struct{}{}
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond) // the timeline's loop has ended by now, or will: either way it counts
	return ctx.Err()
}

// What a worker meets while the engine stops, and what others note after that, is in the store when all have stopped.
func TestWhatIsNotedWhileStoppingIsWritten(t *testing.T) {
	r := newRack(t)
	asked := make(chan struct{}, 1)
	r.open = func(power.Target) (power.BMC, error) { return lingering{r.bmc, asked}, nil }
	r.available()
	r.mute.Store(true)
	r.unplug()
	e := r.now()
	if err := e.withBMC(t.Context(), "m1", func(w *worker, _ power.BMC) error { return w.killNonces(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	r.deploy(inventory.DeployRequest{})
	<-asked
	r.mu.Lock()
	cancel, done := r.end, r.ended
	r.mu.Unlock()
	cancel()
	<-done
	e.Note(inventory.Event{MAC: testMAC, Kind: "http", Text: "a download was cut off"})
	if err := e.Drain(); err != nil {
		t.Fatal(err)
	}
	r.crash()
	told := story(t, r.now().cfg.Store)
	for _, want := range []string{"told to off: context canceled", "a download was cut off"} {
		if !strings.Contains(told, want) {
			t.Errorf("after the stop, nothing on the timeline says %q: %s", want, told)
		}
	}
}
