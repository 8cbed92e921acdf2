package deploy

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// The boot plane writes to the timeline off its hot path: events queue up and are committed together, so a storm of
// packets costs one fsync per tick and not one per packet.
const (
	timelineQueue = 4096
	timelineBatch = 512
	timelineTick  = 200 * time.Millisecond

	// What strangers send ends up in events; these bound one of them. The log of a failed order is the longest.
	maxText  = 1 << 10
	maxDatum = 5 << 10
)

type timeline struct {
	store   *boltdb.Store
	log     *slog.Logger
	owner   func(inventory.MAC) inventory.MachineID
	queue   chan inventory.Event
	lost    atomic.Uint64 // since the last commit that said so
	dropped atomic.Uint64 // since the start

	// Of run alone.
	pending []inventory.Event // taken from the queue and not yet on disk
	failing bool

	repeats repeats

	mu   sync.Mutex
	last uint64
	more chan struct{} // closed when last grows
}

func newTimeline(store *boltdb.Store, log *slog.Logger, last uint64, owner func(inventory.MAC) inventory.MachineID) *timeline {
	return &timeline{store: store, log: log, owner: owner, queue: make(chan inventory.Event, timelineQueue), last: last, more: make(chan struct{})}
}

func (t *timeline) note(e inventory.Event) {
	e.Text = clip(e.Text, maxText)
	for k, v := range e.Data {
		if len(v) > maxDatum {
			e.Data = maps.Clone(e.Data)
			e.Data[k] = clip(v, maxDatum)
		}
	}
	select {
	case t.queue <- e:
	default:
		t.lost.Add(1)
		t.dropped.Add(1)
	}
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

// run commits what is noted until ctx ends, and then what is left.
func (t *timeline) run(ctx context.Context) error {
	tick := time.NewTicker(timelineTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return t.commit()
		case <-tick.C:
			err := t.commit()
			if err != nil && !t.failing { // once, and not five times a second
				t.log.Error("write the timeline; what is not written is kept and tried again", "err", err)
			}
			t.failing = err != nil
		}
	}
}

// commit writes what is noted. What could not be written stays pending, and the queue fills up behind it.
func (t *timeline) commit() error {
	if n := t.lost.Swap(0); n > 0 {
		t.log.Warn("timeline: more events than can be written; some were dropped", "dropped", n)
	}
	for {
		if len(t.pending) == 0 {
			t.pending = t.take()
		}
		if len(t.pending) == 0 {
			return nil
		}
		if err := t.write(t.pending); err != nil {
			return err
		}
		t.pending = nil
	}
}

func (t *timeline) write(noted []inventory.Event) error {
	batch := make([]inventory.Event, len(noted))
	for i, e := range noted {
		if e.Machine == "" && e.MAC != "" {
			e.Machine = t.owner(e.MAC)
		}
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
