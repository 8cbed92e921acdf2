package timeline

import (
	"slices"
	"sync"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A machine that loops through its boot for days causes the same few events again and again. Each is stored
// once, with a count, so that they do not push out what happened before. Only events since the last one of
// the machine's worker (a state, a step, a proof) are repeated: the packets of the next boot count anew.
const (
	maxRepeatOwners = 4096 // past it, as in a flood of invented MACs, all counts begin anew
	maxRepeatKeys   = 64   // of one owner; a boot has fewer
	maxRepeatsAll   = 32 << 10
)

type repeats struct {
	mu     sync.Mutex
	owners map[string]*ownerRepeats
	total  int // of all owners
}

// ownerRepeats are the events of one owner (a machine, or the MAC of a stranger) since its worker last wrote
// one.
type ownerRepeats struct {
	workerSeq uint64 // number of the worker's last event
	events    map[repeatKey]repeat
}

// A repeat is an event in the store, and how often it has happened.
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

// owner is the machine of an event, or the MAC of a stranger.
func owner(e *inventory.Event) string {
	if e.Machine != "" {
		return string(e.Machine)
	}
	return string(e.MAC)
}

// A repeatKey is equal for two events when one repeats the other.
type repeatKey struct {
	kind                                   inventory.EventKind
	mac, actor, text, iface, client, order string
	wire                                   bool // the store has a quota for each of the two
}

func repeatKeyOf(e *inventory.Event) repeatKey {
	return repeatKey{
		e.Kind, string(e.MAC), e.Actor, e.Text, e.Data[inventory.DataInterface], e.Data[inventory.DataClient],
		e.Data[inventory.DataOrder], e.Wire,
	}
}

func (r *repeats) find(e *inventory.Event) (repeat, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[owner(e)]
	if o == nil {
		return repeat{}, false
	}
	before, ok := o.events[repeatKeyOf(e)]
	return before, ok && before.seq > o.workerSeq
}

// keep remembers an event that is on disk.
func (r *repeats) keep(e *inventory.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= maxRepeatsAll {
		r.owners, r.total = nil, 0
	}
	o, key := r.ownerLocked(owner(e)), repeatKeyOf(e)
	if len(o.events) >= maxRepeatKeys {
		r.forgetLocked(o)
	}
	if o.events == nil {
		o.events = map[repeatKey]repeat{}
	}
	if _, again := o.events[key]; !again {
		r.total++
	}
	o.events[key] = repeat{e.Seq, max(e.Count, 1), first(*e)}
}

func (r *repeats) forgetLocked(o *ownerRepeats) {
	r.total -= len(o.events)
	o.events = nil
}

// restart begins the owner's counts anew, after the event of its worker with that number.
func (r *repeats) restart(owner string, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.ownerLocked(owner)
	o.workerSeq = max(o.workerSeq, seq)
	r.forgetLocked(o)
}

func (r *repeats) ownerLocked(owner string) *ownerRepeats {
	o := r.owners[owner]
	if o == nil {
		if r.owners == nil || len(r.owners) >= maxRepeatOwners {
			r.owners, r.total = map[string]*ownerRepeats{}, 0
		}
		o = &ownerRepeats{}
		r.owners[owner] = o
	}
	return o
}

// merge makes one event of those in a batch that repeat each other, in the place of the last.
func merge(batch []inventory.Event) []inventory.Event {
	type key struct {
		owner string
		repeatKey
	}
	at := make(map[key]int, len(batch))
	merged := make([]bool, len(batch)) // into a later one
	for i := range batch {
		e := &batch[i]
		k := key{owner(e), repeatKeyOf(e)}
		if j, ok := at[k]; ok {
			b := batch[j]
			*e = repeat{count: max(b.Count, 1), since: first(b)}.with(*e)
			merged[j] = true
		}
		at[k] = i
	}
	out := make([]inventory.Event, 0, len(at))
	for i := range batch {
		if !merged[i] {
			out = append(out, batch[i])
		}
	}
	return slices.Clip(out)
}

// first is the time of an event's first occurrence.
func first(e inventory.Event) time.Time {
	if e.Since.IsZero() {
		return e.At
	}
	return e.Since
}
