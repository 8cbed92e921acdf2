package timeline

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Events queue up and are written together, so a storm of packets costs one fsync per tick and not one per
// packet.
const (
	queueSize = 4096
	batchSize = 512
	tickEvery = 200 * time.Millisecond
	// maxRounds bounds the batches of one commit to twice what can be queued, so that losses are logged in
	// time.
	maxRounds = 2 * queueSize / batchSize
	drainTime = 500 * time.Millisecond

	complainEvery = time.Minute

	// Events of many strangers are written once a second, and only the newest: the store keeps few of them
	// anyway. Of 20,000 packets a second nine tenths are never written.
	strangersQueue = 4 * queueSize
	strangersKept  = 2000
	fewStrangers   = 512
	strangersEvery = time.Second
)

// A Timeline queues events and writes them to the store. Note and Wait are for any goroutine. Run and Drain
// are for one, Drain after Run.
type Timeline struct {
	store     *boltdb.Store
	log       *slog.Logger
	owner     func(inventory.MAC) inventory.MachineID
	now       func() time.Time
	own       chan inventory.Event // what the appliance itself did, which no flood drops
	queue     chan inventory.Event // from the wire, of machines
	strangers chan inventory.Event // from the wire, of MACs that no machine has
	lost      atomic.Uint64        // since the last commit that said so, once in complainEvery
	dropped   atomic.Uint64        // since the start

	// Only Run and Drain touch these.
	pending []inventory.Event // taken from the queue and not yet on disk
	waiting []inventory.Event // of strangers, the newest strangersKept
	wrote   time.Time         // when strangers were written last
	failing bool
	// complained is when it was last logged that events were dropped. A flood of packets must not fill the
	// log, too.
	complained time.Time

	repeats repeats

	mu   sync.Mutex
	last uint64
	more chan struct{} // closed when last grows
}

// New returns a timeline that continues after the event with the number last. owner finds the machine of a
// MAC; it returns "" when there is none.
func New(
	store *boltdb.Store, log *slog.Logger, last uint64, owner func(inventory.MAC) inventory.MachineID,
) *Timeline {
	return &Timeline{
		store: store, log: log, owner: owner, now: time.Now, last: last, more: make(chan struct{}),
		own: make(chan inventory.Event, queueSize), queue: make(chan inventory.Event, queueSize),
		strangers: make(chan inventory.Event, strangersQueue),
	}
}

// Note queues an event. It never blocks: when the queue is full, it drops the event and counts it.
func (t *Timeline) Note(e inventory.Event) {
	e = Bounded(e)
	queue := t.own
	switch {
	case !e.Wire:
	case t.ownerOf(e) == "":
		queue = t.strangers
	default:
		queue = t.queue
	}
	select {
	case queue <- e:
	default:
		t.lost.Add(1)
		t.dropped.Add(1)
	}
}

func (t *Timeline) ownerOf(e inventory.Event) inventory.MachineID {
	if e.Machine == "" && e.MAC != "" {
		return t.owner(e.MAC)
	}
	return e.Machine
}

// Dropped is how many events could not be recorded since the start.
func (t *Timeline) Dropped() uint64 { return t.dropped.Load() }

// Run writes queued events until ctx ends.
func (t *Timeline) Run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err := t.commit(ctx)
			if err != nil && !t.failing { // log it once, not five times a second
				t.log.Error("write the timeline; what is not written is kept and tried again", "err", err)
			}
			t.failing = err != nil
		}
	}
}

// Drain writes what is still queued. It gives up after half a second: a stuck disk must not hold up the stop.
func (t *Timeline) Drain() error {
	t.wrote, t.complained = time.Time{}, time.Time{} // both are due at once
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := t.commit(ctx); err != nil {
		return fmt.Errorf("write the timeline: %w", err)
	}
	if n := len(t.pending) + len(t.waiting) + len(t.own) + len(t.queue) + len(t.strangers); n > 0 {
		t.log.Warn("timeline: there was no time to write all events before the stop", "lost", n)
	}
	return nil
}

// commit writes what is queued, in transactions of PerTransaction events, until ctx ends. Events that could
// not be written stay pending, and the queue fills up behind them.
func (t *Timeline) commit(ctx context.Context) error {
	if now := t.now(); now.Sub(t.complained) >= complainEvery && t.lost.Load() > 0 {
		t.complained = now
		n := t.lost.Swap(0)
		t.log.Warn("timeline: more events than can be written; some were dropped", "dropped", n)
	}
	t.gather()
	for range maxRounds {
		if len(t.pending) == 0 {
			t.pending = merge(t.next())
		}
		for len(t.pending) > 0 {
			if ctx.Err() != nil {
				return nil
			}
			n := min(len(t.pending), PerTransaction)
			if err := t.write(t.pending[:n]); err != nil {
				return err
			}
			t.pending = t.pending[n:]
		}
		if len(t.own)+len(t.queue)+len(t.strangers) == 0 {
			break
		}
	}
	return nil
}

// gather takes the newest events of strangers from their queue.
func (t *Timeline) gather() {
	for range len(t.strangers) {
		t.waiting = append(t.waiting, <-t.strangers)
	}
	if len(t.waiting) > strangersKept {
		t.waiting = merge(t.waiting)
		t.waiting = slices.Delete(t.waiting, 0, max(0, len(t.waiting)-strangersKept))
	}
}

// next takes the events that are due, in the order in which they were seen.
func (t *Timeline) next() []inventory.Event {
	batch := t.take()
	t.gather() // after take: a MAC can have become a machine's in between
	due := len(t.waiting) <= fewStrangers || t.now().Sub(t.wrote) >= strangersEvery
	if due {
		t.wrote = t.now()
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(e inventory.Event) bool {
		now := due || t.ownerOf(e) != "" // its MAC may be a machine's by now
		if now {
			batch = append(batch, e)
		}
		return now
	})
	slices.SortStableFunc(batch, func(a, b inventory.Event) int { return a.At.Compare(b.At) })
	return batch
}

// write writes the first pending events. It drops those that make it panic, since they would do so again.
func (t *Timeline) write(noted []inventory.Event) (err error) {
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

func (t *Timeline) commitBatch(noted []inventory.Event) error {
	batch := make([]inventory.Event, len(noted))
	for i, e := range noted {
		e.Machine = t.ownerOf(e)
		batch[i] = e
	}
	batch = merge(batch)
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
			*e = before.with(*e)
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
	t.Wrote(batch[len(batch)-1].Seq)
	return nil
}

// take takes a batch from the queues, the appliance's own events first.
func (t *Timeline) take() []inventory.Event {
	var batch []inventory.Event
	for _, queue := range []chan inventory.Event{t.own, t.queue} {
		for len(batch) < batchSize && len(queue) > 0 { // nobody else takes from it
			batch = append(batch, <-queue)
		}
	}
	return batch
}

// EndRepeats says that a machine's worker has written the event with that number. What repeats an earlier
// event is stored as an event of its own from then on.
func (t *Timeline) EndRepeats(id inventory.MachineID, seq uint64) { t.repeats.restart(string(id), seq) }

// Wrote wakes those who wait for events up to seq, which are in the store.
func (t *Timeline) Wrote(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq > t.last {
		t.last = seq
		close(t.more)
		t.more = make(chan struct{})
	}
}

// Wait returns when the store has an event after the one with that number, or with ctx's error.
func (t *Timeline) Wait(ctx context.Context, after uint64) error {
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
