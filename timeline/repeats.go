package timeline

import (
	"slices"
	"sync"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A machine that loops through its boot for days causes the same few events again and again. Each is stored
// once, with a count, so that they do not push out what happened before. An event of the machine's worker (a
// state, a step, a proof) ends a row of repeats, so the packets of the next boot are events of their own.
const (
	maxRepeatOwners = 4096 // past it, as in a flood of invented MACs, all rows begin anew
	maxRepeatKeys   = 64   // of one owner; a boot has fewer
	maxRepeatsAll   = 32 << 10
)

type repeats struct {
	mu     sync.Mutex
	owners map[string]*row
	all    int // number of repeats of all owners
}

// A row is the events of one owner (a machine, or the MAC of a stranger) since its worker last wrote one.
type row struct {
	bar    uint64 // number of the worker's last event
	events map[sameness]repeat
}

type repeat struct {
	seq   uint64
	count int
	since time.Time
}

// with returns the event with the count of those that it repeats.
func (r repeat) with(e inventory.Event) inventory.Event {
	e.Count = r.count + max(e.Count, 1)
	e.Since = r.since
	return e
}

func owned(e *inventory.Event) string {
	if e.Machine != "" {
		return string(e.Machine)
	}
	return string(e.MAC)
}

// A sameness is what two events have in common when one repeats the other.
type sameness struct {
	kind                                   inventory.EventKind
	mac, actor, text, iface, client, order string
	wire                                   bool // the store has a quota for each of both
}

func samenessOf(e *inventory.Event) sameness {
	return sameness{e.Kind, string(e.MAC), e.Actor, e.Text, e.Data[inventory.DataInterface], e.Data[inventory.DataClient], e.Data[inventory.DataOrder], e.Wire}
}

func (r *repeats) find(e *inventory.Event) (repeat, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[owned(e)]
	if o == nil {
		return repeat{}, false
	}
	before, ok := o.events[samenessOf(e)]
	return before, ok && before.seq > o.bar
}

// keep remembers an event that is on disk.
func (r *repeats) keep(e *inventory.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all >= maxRepeatsAll {
		r.owners, r.all = nil, 0
	}
	o, same := r.rowLocked(owned(e)), samenessOf(e)
	if len(o.events) >= maxRepeatKeys {
		r.forgetLocked(o)
	}
	if o.events == nil {
		o.events = map[sameness]repeat{}
	}
	if _, again := o.events[same]; !again {
		r.all++
	}
	o.events[same] = repeat{e.Seq, max(e.Count, 1), first(*e)}
}

func (r *repeats) forgetLocked(o *row) {
	r.all -= len(o.events)
	o.events = nil
}

// bar ends the owner's row with the event of that number.
func (r *repeats) bar(owner string, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.rowLocked(owner)
	o.bar = max(o.bar, seq)
	r.forgetLocked(o)
}

func (r *repeats) rowLocked(owner string) *row {
	o := r.owners[owner]
	if o == nil {
		if r.owners == nil || len(r.owners) >= maxRepeatOwners {
			r.owners, r.all = map[string]*row{}, 0
		}
		o = &row{}
		r.owners[owner] = o
	}
	return o
}

// merge makes one event of those in a batch that repeat each other. It stands where the last of them stood.
func merge(batch []inventory.Event) []inventory.Event {
	type key struct {
		owner string
		sameness
	}
	at := make(map[key]int, len(batch))
	gone := make([]bool, len(batch))
	for i := range batch {
		e := &batch[i]
		k := key{owned(e), samenessOf(e)}
		if j, ok := at[k]; ok {
			b := batch[j]
			*e = repeat{count: max(b.Count, 1), since: first(b)}.with(*e)
			gone[j] = true
		}
		at[k] = i
	}
	out := make([]inventory.Event, 0, len(at))
	for i := range batch {
		if !gone[i] {
			out = append(out, batch[i])
		}
	}
	return slices.Clip(out)
}

// first is when an event was seen first.
func first(e inventory.Event) time.Time {
	if e.Since.IsZero() {
		return e.At
	}
	return e.Since
}
