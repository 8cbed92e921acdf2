package leases

import (
	"cmp"
	"container/heap"
	"container/list"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	offerFor = time.Minute // EDK2 collects offers for four seconds, dhclient for longer
	// How long an address stays out of use after a DECLINE. Whoever took it is rarely
	// gone at once, and a client that declines everything must not cost a pool for long.
	declineFor = time.Hour
)

// Config is what a Table needs.
type Config struct {
	Path         string // of the journal; its directory must exist
	Subnets      []Subnet
	UnknownShare int // percent of a subnet's pools that machines which are not known may hold
	Log          *slog.Logger
	Now          func() time.Time
}

// A Table is all leases. Its methods may be called from several goroutines.
type Table struct {
	cfg     Config
	journal *journal

	mu      sync.Mutex
	subnets []*subnet
	at      map[uint32]*entry
	of      map[holder]*entry // a client has one address per subnet
	expiry  expiries          // of all that is Offered, Bound or Declined
}

// holder is a client within a subnet.
type holder struct {
	subnet int
	client string
}

type subnet struct {
	Subnet
	size    int // of all pools
	unknown int // pool addresses held by machines that are not known
	limit   int // of the above
	except  map[uint32]bool
	fresh   []span     // never used yet
	free    *list.List // of *entry, the one that is free for the longest time first
}

type span struct{ next, last uint32 }

type entry struct {
	Lease
	subnet int
	due    int           // place in expiry, -1 when not there
	freeAt *list.Element // place in free
}

// Open reads the journal and opens it for more. What is damaged in it is told in the log.
func Open(cfg Config) (*Table, error) {
	t := &Table{cfg: cfg, at: map[uint32]*entry{}, of: map[holder]*entry{}}
	for _, s := range cfg.Subnets {
		n := &subnet{Subnet: s, except: map[uint32]bool{}, free: list.New()}
		for _, a := range s.Except {
			n.except[number(a)] = true
		}
		for _, r := range s.Pools {
			n.size += r.Size()
			n.fresh = append(n.fresh, span{number(r.First), number(r.Last)})
		}
		n.limit = (n.size*cfg.UnknownShare + 99) / 100
		t.subnets = append(t.subnets, n)
	}
	j, old, err := openJournal(cfg.Path, cfg.Log)
	if err != nil {
		return nil, err
	}
	var strangers int
	for _, l := range old {
		if !t.restore(l) {
			strangers++
		}
	}
	if strangers > 0 {
		cfg.Log.Warn("dhcp: leases of no configured subnet are forgotten", "leases", strangers)
	}
	j.snapshot = t.encode
	t.journal = j
	go j.run()
	return t, nil
}

// restore takes over one lease of the disk.
func (t *Table) restore(l Lease) bool {
	at := slices.IndexFunc(t.subnets, func(s *subnet) bool { return s.Prefix.Contains(l.Addr) })
	if at < 0 {
		return false
	}
	e := t.takeLocked(at, number(l.Addr))
	e.MAC, e.Host, e.Reservation = l.MAC, l.Host, l.Reservation
	if l.State == Declined || l.Client == "" { // nobody's
		e.Client = l.Client
	} else {
		t.ownLocked(e, l.Client)
	}
	t.turnLocked(e, l.State, l.Known, l.Expires)
	return true
}

// Close writes what is waiting and closes the file.
func (t *Table) Close() error { return t.journal.close() }

// List is all leases that are on the disk and not free, in the order of their addresses.
func (t *Table) List() []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	var all []Lease
	for _, e := range t.at {
		if e.State == Bound || e.State == Declined {
			all = append(all, e.Lease)
		}
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return all
}

// encode is the whole table as records, and how many they are.
func (t *Table) encode() ([]byte, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b []byte
	var n int
	for _, k := range slices.SortedFunc(maps.Keys(t.at), cmp.Compare) {
		if e := t.at[k]; e.State != Offered {
			b = appendRecord(b, e.Lease)
			n++
		}
	}
	return b, n
}

// takeLocked is the entry of an address, which is made when there is none.
func (t *Table) takeLocked(subnet int, n uint32) *entry {
	e := t.at[n]
	if e == nil {
		e = &entry{Lease: Lease{Addr: address(n), State: Free}, subnet: subnet, due: -1}
		t.at[n] = e
	}
	return e
}

// ownLocked makes the client the owner of an entry, and this its only one.
func (t *Table) ownLocked(e *entry, client string) {
	if before := (holder{e.subnet, e.Client}); t.of[before] == e {
		delete(t.of, before)
	}
	h := holder{e.subnet, client}
	if other := t.of[h]; other != nil && other != e && other.State == Offered {
		t.turnLocked(other, Free, other.Known, other.Expires)
	}
	e.Client = client
	t.of[h] = e
}

// turnLocked changes the state of an entry and everything that depends on it.
func (t *Table) turnLocked(e *entry, state State, known bool, expires time.Time) {
	s, n := t.subnets[e.subnet], number(e.Addr)
	pooled := s.pooled(n)
	if e.State != Free && !e.Known && pooled {
		s.unknown--
	}
	if e.freeAt != nil {
		s.free.Remove(e.freeAt)
		e.freeAt = nil
	}
	e.State, e.Known, e.Expires = state, known, expires
	switch {
	case state != Free:
		if !known && pooled {
			s.unknown++
		}
		if e.due < 0 {
			heap.Push(&t.expiry, e)
		} else {
			heap.Fix(&t.expiry, e.due)
		}
		return
	case pooled:
		e.freeAt = s.free.PushBack(e)
	default:
		t.forgetLocked(e)
	}
	if e.due >= 0 {
		heap.Remove(&t.expiry, e.due)
	}
}

// forgetLocked takes an entry out of the indexes.
func (t *Table) forgetLocked(e *entry) {
	delete(t.at, number(e.Addr))
	if h := (holder{e.subnet, e.Client}); t.of[h] == e {
		delete(t.of, h)
	}
}

// sweepLocked frees what has expired.
func (t *Table) sweepLocked(now time.Time) {
	for len(t.expiry) > 0 && !t.expiry[0].Expires.After(now) {
		e := t.expiry[0]
		t.turnLocked(e, Free, e.Known, e.Expires)
	}
}

// pooled says whether anybody may have that address.
func (s *subnet) pooled(n uint32) bool {
	a := address(n)
	return !s.except[n] && slices.ContainsFunc(s.Pools, func(r Range) bool { return r.Contains(a) })
}

// expiries is a heap of entries, the one that expires first at its top.
type expiries []*entry

func (x expiries) Len() int           { return len(x) }
func (x expiries) Less(i, j int) bool { return x[i].Expires.Before(x[j].Expires) }
func (x expiries) Swap(i, j int) {
	x[i], x[j] = x[j], x[i]
	x[i].due, x[j].due = i, j
}

func (x *expiries) Push(v any) {
	e := v.(*entry)
	e.due = len(*x)
	*x = append(*x, e)
}

func (x *expiries) Pop() any {
	old := *x
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.due = -1
	*x = old[:len(old)-1]
	return e
}

// Except takes an address out of the pools. taken is whether somebody has it, whose lease goes on until it expires.
func (t *Table) Except(a netip.Addr) (l Lease, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	at := slices.IndexFunc(t.subnets, func(s *subnet) bool { return s.Prefix.Contains(a) })
	if at < 0 {
		return Lease{}, false
	}
	s, n := t.subnets[at], number(a)
	pooled, e := s.pooled(n), t.at[n]
	s.except[n] = true
	switch {
	case e == nil:
		return Lease{}, false
	case e.State != Free:
		if pooled && !e.Known {
			s.unknown--
		}
		return e.Lease, true
	case e.freeAt != nil:
		s.free.Remove(e.freeAt)
		e.freeAt = nil
	}
	t.forgetLocked(e)
	return Lease{}, false
}

// At is the lease of an address; ok is false when nobody has it.
func (t *Table) At(a netip.Addr) (l Lease, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	e := t.at[number(a)]
	if e == nil || e.State == Free {
		return Lease{}, false
	}
	return e.Lease, true
}

// Of is the lease that a client has or had in a subnet; ok is false when it never had
// one, or others have it since.
func (t *Table) Of(subnet int, client string) (l Lease, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	e := t.of[holder{subnet, client}]
	if e == nil {
		return Lease{}, false
	}
	return e.Lease, true
}
