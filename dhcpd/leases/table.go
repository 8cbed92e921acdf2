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
	// How long an address stays out of use after a DECLINE: whoever took it is rarely gone at once. A
	// reserved one comes back sooner, since its machine has no other.
	declineFor, declineReservedFor = time.Hour, 10 * time.Minute
	// How many addresses one client keeps out of use. With one more, the one that it declined first is free
	// again.
	maxDeclines = 3
	// A client declines an address when it has just been given it (RFC 2131 section 4.4.1). A later DECLINE
	// changes nothing, so a forged one does not end the lease of a machine that runs; a client that means it
	// asks again, and may decline then.
	declineWithin = 2 * time.Minute
	// For so long no other client gets a released address by asking for it, so that a forged RELEASE gains
	// nothing.
	releasedFor = 10 * time.Minute
	// The firmware, the boot program and the system of a machine may have an identifier each, and no more.
	knownLeases = 3
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
	size    int              // of all pools
	unknown int              // pool addresses held by machines that are not known
	limit   int              // of the above
	known   map[string]tally // pool addresses held by those that are, by what they are known by
	except  map[uint32]bool
	fresh   []span     // never used yet
	free    *list.List // of *entry, the one that is free for the longest time first
	// Pool addresses that clients declined, the longest out of use first. They are nobody's: no share counts
	// them.
	declined  *list.List
	decliners map[string][]*entry // the same by client, few of each
}

// A tally is the leases of one machine.
type tally struct{ all, aliases int }

type span struct{ next, last uint32 }

type entry struct {
	Lease
	subnet int
	due    int           // place in expiry, -1 when not there
	listed *list.Element // place in the subnet's free or declined
	by     string        // what it is counted under in the subnet's known; "" for not at all
	given  time.Time     // when its client was given it last, renewals left out
	freed  time.Time     // when its client released it; zero when it did not
	// Who declined it, while it is declined: a MAC, since identifiers cost nothing. MACs do not either; what
	// many of them decline is offered again when nothing else is free.
	decliner string
}

// A standing is whether a client is known, and by what.
type standing struct {
	known, alias bool
	by           string
}

// Open reads the journal and opens it for appending. It logs what is damaged in it.
func Open(cfg Config) (*Table, error) {
	t := &Table{cfg: cfg, at: map[uint32]*entry{}, of: map[holder]*entry{}}
	for _, s := range cfg.Subnets {
		n := &subnet{
			Subnet:    s,
			known:     map[string]tally{},
			except:    map[uint32]bool{},
			free:      list.New(),
			declined:  list.New(),
			decliners: map[string][]*entry{},
		}
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
	j.begin()
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
	// The time of day is used only here: from now on no lease ends because somebody sets the clock.
	now := t.cfg.Now()
	expires := now.Add(l.Expires.Sub(now))
	// By its MAC, whatever it was known by: with its next renewal that is right again.
	t.turnLocked(e, l.State, standing{l.Known, l.Alias, string(l.MAC)}, expires)
	return true
}

// Close writes what is waiting and closes the file.
func (t *Table) Close() error { return t.journal.close() }

// List is all leases that are on the disk and not free, in the order of their addresses.
func (t *Table) List() []Lease {
	return slices.DeleteFunc(t.All(), func(l Lease) bool { return l.State == Offered })
}

// All is List and what is offered at the moment.
func (t *Table) All() []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	var all []Lease
	for _, e := range t.at {
		if e.State != Free {
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
		t.turnLocked(other, Free, other.standing(), other.Expires)
	}
	e.Client = client
	t.of[h] = e
}

func (e *entry) standing() standing { return standing{e.Known, e.Alias, e.by} }

// count adds n to what the subnet counts of an entry that is held.
func (s *subnet) count(e *entry, n int) {
	switch {
	case e.State != Offered && e.State != Bound || !s.pooled(number(e.Addr)):
	case !e.Known:
		s.unknown += n
	case e.by != "":
		held := s.known[e.by]
		held.all += n
		if e.Alias {
			held.aliases += n
		}
		if s.known[e.by] = held; held.all == 0 {
			delete(s.known, e.by)
		}
	}
}

// unlist takes an entry out of the free and the declined ones.
func (s *subnet) unlist(e *entry) {
	if e.listed == nil {
		return
	}
	if e.State == Declined {
		s.declined.Remove(e.listed)
		others := slices.DeleteFunc(s.decliners[e.decliner], func(o *entry) bool { return o == e })
		if s.decliners[e.decliner] = others; len(others) == 0 {
			delete(s.decliners, e.decliner)
		}
	} else {
		s.free.Remove(e.listed)
	}
	e.listed = nil
}

// turnLocked changes the state of an entry, with all that depends on it.
func (t *Table) turnLocked(e *entry, state State, who standing, expires time.Time) {
	s := t.subnets[e.subnet]
	pooled := s.pooled(number(e.Addr))
	s.count(e, -1)
	s.unlist(e)
	e.State, e.Known, e.Alias, e.by, e.Expires = state, who.known, who.alias, who.by, expires
	e.freed = time.Time{}
	s.count(e, 1)
	if state != Free {
		if state == Declined && pooled {
			e.listed = s.declined.PushBack(e)
			e.decliner = cmp.Or(string(e.MAC), e.Client)
			s.decliners[e.decliner] = append(s.decliners[e.decliner], e)
		}
		if e.due < 0 {
			heap.Push(&t.expiry, e)
		} else {
			heap.Fix(&t.expiry, e.due)
		}
		return
	}
	if pooled {
		e.listed = s.free.PushBack(e)
	} else {
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
		t.turnLocked(e, Free, e.standing(), e.Expires)
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

// Except takes an address out of the pools. taken is whether somebody has it, whose lease goes on until it
// expires.
func (t *Table) Except(a netip.Addr) (l Lease, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(t.cfg.Now())
	at := slices.IndexFunc(t.subnets, func(s *subnet) bool { return s.Prefix.Contains(a) })
	if at < 0 {
		return Lease{}, false
	}
	s, n := t.subnets[at], number(a)
	e := t.at[n]
	if e != nil { // it is counted and listed for as long as it is in a pool
		s.count(e, -1)
		s.unlist(e)
	}
	s.except[n] = true
	switch {
	case e == nil:
		return Lease{}, false
	case e.State != Free:
		return e.Lease, true
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
