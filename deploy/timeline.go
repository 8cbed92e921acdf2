package deploy

import (
	"context"
	"log/slog"
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
)

type timeline struct {
	store   *boltdb.Store
	log     *slog.Logger
	owner   func(inventory.MAC) inventory.MachineID
	queue   chan inventory.Event
	dropped atomic.Uint64

	mu   sync.Mutex
	last uint64
	more chan struct{} // closed when last grows
}

func newTimeline(store *boltdb.Store, log *slog.Logger, last uint64, owner func(inventory.MAC) inventory.MachineID) *timeline {
	return &timeline{store: store, log: log, owner: owner, queue: make(chan inventory.Event, timelineQueue), last: last, more: make(chan struct{})}
}

func (t *timeline) note(e inventory.Event) {
	select {
	case t.queue <- e:
	default:
		t.dropped.Add(1)
	}
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
			if err := t.commit(); err != nil {
				t.log.Error("write the timeline", "err", err)
			}
		}
	}
}

func (t *timeline) commit() error {
	if n := t.dropped.Swap(0); n > 0 {
		t.log.Warn("timeline: more events than can be written; some were dropped", "dropped", n)
	}
	for {
		batch := t.take()
		if len(batch) == 0 {
			return nil
		}
		err := t.store.Update(func(tx *boltdb.Tx) error {
			for i := range batch {
				if batch[i].Machine == "" && batch[i].MAC != "" {
					batch[i].Machine = t.owner(batch[i].MAC)
				}
				if err := tx.AppendEvent(&batch[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		t.grown(batch[len(batch)-1].Seq)
	}
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
