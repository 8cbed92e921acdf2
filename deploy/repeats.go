package deploy

import (
	"slices"
	"sync"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A machine that loops through its boot for days says the same few things over and over. They are kept once, with a count, so
// that they do not push out what happened before. What its worker writes (a state, a step, a proof) ends a row of repeats: the
// next boot's packets stand for themselves.
const (
	maxRepeatOwners = 4096 // a flood of invented MACs; past it, rows begin anew
	maxRepeatKeys   = 64   // of one owner: more than a boot has
	maxRepeatsAll   = 32 << 10
)

type repeats struct {
	mu     sync.Mutex
	owners map[string]*row
	all    int // sayings of all owners
}

// A row is what one owner (a machine, or the MAC of a stranger) said since something else happened to it.
type row struct {
	bar  uint64 // number of the worker's last event
	said map[saying]repeat
}

type repeat struct {
	seq   uint64
	count int
	since time.Time
}

// and adds the event to those that it repeats.
func (r repeat) and(e inventory.Event) inventory.Event {
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

// A saying is what two events have in common when one repeats the other.
type saying struct {
	kind, mac, actor, text, iface, client, order string
	wire                                         bool // the stored ones have quotas apart
}

func sayingOf(e *inventory.Event) saying {
	return saying{e.Kind, string(e.MAC), e.Actor, e.Text, e.Data["interface"], e.Data["client"], e.Data["order"], e.Wire}
}

func (r *repeats) find(e *inventory.Event) (repeat, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.owners[owned(e)]
	if o == nil {
		return repeat{}, false
	}
	before, ok := o.said[sayingOf(e)]
	return before, ok && before.seq > o.bar
}

// keep remembers an event that is on disk.
func (r *repeats) keep(e *inventory.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all >= maxRepeatsAll {
		r.owners, r.all = nil, 0
	}
	o, said := r.rowLocked(owned(e)), sayingOf(e)
	if len(o.said) >= maxRepeatKeys {
		r.forgetLocked(o)
	}
	if o.said == nil {
		o.said = map[saying]repeat{}
	}
	if _, again := o.said[said]; !again {
		r.all++
	}
	o.said[said] = repeat{e.Seq, max(e.Count, 1), first(*e)}
}

func (r *repeats) forgetLocked(o *row) {
	r.all -= len(o.said)
	o.said = nil
}

// bar ends the owner's row.
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

// together makes one of those events of a batch that repeat each other; it stands where the last of them stood.
func together(batch []inventory.Event) []inventory.Event {
	type saidBy struct {
		owner string
		saying
	}
	at := make(map[saidBy]int, len(batch))
	gone := make([]bool, len(batch))
	for i := range batch {
		e := &batch[i]
		k := saidBy{owned(e), sayingOf(e)}
		if j, ok := at[k]; ok {
			b := batch[j]
			*e = repeat{count: max(b.Count, 1), since: first(b)}.and(*e)
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
