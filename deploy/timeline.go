package deploy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// The boot plane writes to the timeline off its hot path: events queue up and are committed together, so a storm of
// packets costs one fsync per tick and not one per packet.
const (
	timelineQueue = 4096
	timelineBatch = 512
	timelineTick  = 200 * time.Millisecond
	// timelineRounds is how many batches are written before what was lost meanwhile is looked at: twice what can be queued.
	timelineRounds = 2 * timelineQueue / timelineBatch
	lastCommit     = 500 * time.Millisecond

	// What many strangers say is written once a second, and only the newest of it, since the store soon forgets it: of 20,000
	// packets a second nine tenths are never written.
	strangersQueue = 4 * timelineQueue
	strangersKept  = 2000
	fewStrangers   = 512
	strangersEvery = time.Second

	// What strangers send ends up in events; these bound one of them: its text, a datum, and those that are some lines long, the
	// log of a failed order and what a console said.
	maxText  = 1 << 10
	maxDatum = 512
	maxLines = 5 << 10
)

func maxDatumOf(key string) int {
	if key == "log" || key == "console" {
		return maxLines
	}
	return maxDatum
}

type timeline struct {
	store     *boltdb.Store
	log       *slog.Logger
	owner     func(inventory.MAC) inventory.MachineID
	now       func() time.Time
	queue     chan inventory.Event // of machines
	strangers chan inventory.Event // of nobody's; apart, so that a flood of them drops no machine's
	lost      atomic.Uint64        // since the last commit that said so
	dropped   atomic.Uint64        // since the start

	// Of run and drain alone.
	pending []inventory.Event // taken from the queue and not yet on disk
	waiting []inventory.Event // of strangers, the newest strangersKept
	wrote   time.Time         // when strangers were written last
	failing bool

	repeats repeats

	mu   sync.Mutex
	last uint64
	more chan struct{} // closed when last grows
}

func newTimeline(store *boltdb.Store, log *slog.Logger, last uint64, owner func(inventory.MAC) inventory.MachineID) *timeline {
	return &timeline{
		store: store, log: log, owner: owner, now: time.Now, last: last, more: make(chan struct{}),
		queue: make(chan inventory.Event, timelineQueue), strangers: make(chan inventory.Event, strangersQueue),
	}
}

func (t *timeline) note(e inventory.Event) {
	e = bounded(e)
	queue := t.queue
	if t.ownerOf(e) == "" {
		queue = t.strangers
	}
	select {
	case queue <- e:
	default:
		t.lost.Add(1)
		t.dropped.Add(1)
	}
}

func (t *timeline) ownerOf(e inventory.Event) inventory.MachineID {
	if e.Machine == "" && e.MAC != "" {
		return t.owner(e.MAC)
	}
	return e.Machine
}

// Dropped is how many events could not be recorded since the start.
func (e *Engine) Dropped() uint64 { return e.timeline.dropped.Load() }

// clip cuts a text to n bytes at a whole character.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// run commits what is noted until ctx ends.
func (t *timeline) run(ctx context.Context) {
	tick := time.NewTicker(timelineTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err := t.commit(ctx)
			if err != nil && !t.failing { // once, and not five times a second
				t.log.Error("write the timeline; what is not written is kept and tried again", "err", err)
			}
			t.failing = err != nil
		}
	}
}

// drain commits all that is noted, after run. What a crash may lose, a stop may lose: it does not wait for a disk that is stuck.
func (t *timeline) drain() error {
	t.wrote = time.Time{} // strangers, too
	ctx, cancel := context.WithTimeout(context.Background(), lastCommit)
	defer cancel()
	if err := t.commit(ctx); err != nil {
		return fmt.Errorf("write the timeline: %w", err)
	}
	if n := len(t.pending) + len(t.waiting) + len(t.queue) + len(t.strangers); n > 0 {
		t.log.Warn("timeline: there was no time to write all events before the stop", "lost", n)
	}
	return nil
}

// commit writes what is noted, in transactions of perTransaction events, until ctx ends. What could not be written stays pending,
// and the queue fills up behind it.
func (t *timeline) commit(ctx context.Context) error {
	if n := t.lost.Swap(0); n > 0 {
		t.log.Warn("timeline: more events than can be written; some were dropped", "dropped", n)
	}
	t.gather()
	for range timelineRounds {
		if len(t.pending) == 0 {
			t.pending = together(t.next())
		}
		for len(t.pending) > 0 {
			if ctx.Err() != nil {
				return nil
			}
			n := min(len(t.pending), perTransaction)
			if err := t.write(t.pending[:n]); err != nil {
				return err
			}
			t.pending = t.pending[n:]
		}
		if len(t.queue) == 0 && len(t.strangers) == 0 {
			break
		}
	}
	return nil
}

// gather takes over what strangers said, the newest of it.
func (t *timeline) gather() {
	for range len(t.strangers) {
		t.waiting = append(t.waiting, <-t.strangers)
	}
	if len(t.waiting) > strangersKept {
		t.waiting = together(t.waiting)
		t.waiting = slices.Delete(t.waiting, 0, max(0, len(t.waiting)-strangersKept))
	}
}

// next takes what is to be written now, in the order in which it was seen.
func (t *timeline) next() []inventory.Event {
	batch := t.take()
	t.gather() // after that: who is a machine by now was a stranger before
	due := len(t.waiting) <= fewStrangers || t.now().Sub(t.wrote) >= strangersEvery
	if due {
		t.wrote = t.now()
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(e inventory.Event) bool {
		goes := due || t.ownerOf(e) != "" // by now
		if goes {
			batch = append(batch, e)
		}
		return goes
	})
	slices.SortStableFunc(batch, func(a, b inventory.Event) int { return a.At.Compare(b.At) })
	return batch
}

// write writes the first of what is pending. Those over which we panic are dropped: it would be the same again.
func (t *timeline) write(noted []inventory.Event) (err error) {
	survived := false
	defer func() {
		if !survived {
			t.lost.Add(uint64(len(noted)))
			t.dropped.Add(uint64(len(noted)))
			t.pending = t.pending[len(noted):]
		}
	}()
	defer bug.Return(t.log, "write the timeline", &err)
	err = t.commitBatch(noted)
	survived = true
	return err
}

func (t *timeline) commitBatch(noted []inventory.Event) error {
	batch := make([]inventory.Event, len(noted))
	for i, e := range noted {
		e.Machine = t.ownerOf(e)
		batch[i] = e
	}
	batch = together(batch)
	err := t.store.Update(func(tx *boltdb.Tx) error {
		for i := range batch {
			e := &batch[i]
			before, ok := t.repeats.find(e)
			if !ok {
				if err := tx.AppendEvent(e); err != nil {
					return err
				}
				continue
			}
			*e = before.and(*e)
			if err := tx.RepeatEvent(before.seq, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range batch {
		t.repeats.keep(&batch[i])
	}
	t.grown(batch[len(batch)-1].Seq)
	return nil
}

func (t *timeline) take() []inventory.Event {
	var batch []inventory.Event
	for len(batch) < timelineBatch {
		select {
		case e := <-t.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// happened tells that the machine's worker has written its own events, up to seq.
func (t *timeline) happened(id inventory.MachineID, seq uint64) {
	t.repeats.bar(string(id), seq)
	t.grown(seq)
}

// grown tells those who wait that events up to seq are in the store.
func (t *timeline) grown(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq > t.last {
		t.last = seq
		close(t.more)
		t.more = make(chan struct{})
	}
}

func (t *timeline) wait(ctx context.Context, after uint64) error {
	for {
		t.mu.Lock()
		last, more := t.last, t.more
		t.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
