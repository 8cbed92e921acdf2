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
	// changes nothing, so a forged one does not end the lease of a running machine. A client that really has
	// to decline asks for its address again first.
	declineWithin = 2 * time.Minute
	// How long no other client gets a released address by asking for it. So a forged RELEASE gains nothing.
	releasedFor = 10 * time.Minute
	// Leases that count as one known machine's: its firmware, boot program and system may have an identifier
	// each.
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
	limit   int              // what unknown may be at most
	known   map[string]tally // pool addresses held by known machines, by Claim.KnownBy
	except  map[uint32]bool
	fresh   []span     // ranges of addresses that were never used
	free    *list.List // of *entry, the one that is free for the longest time first
	// Pool addresses that clients declined, the longest out of use first. They belong to nobody, so no share
	// counts them.
	declined  *list.List
	decliners map[string][]*entry // the same by entry.decliner, at most maxDeclines of each
}

// A tally is the leases of one machine.
type tally struct{ all, aliases int }

type span struct{ next, last uint32 }

type entry struct {
	Lease
	subnet int
	due    int           // index in expiry, -1 when not there
	listed *list.Element // place in the subnet's free or declined; nil for neither
	by     string        // key in the subnet's known that counts it; "" for none
	given  time.Time     // when its client got it last; renewals do not count
	freed  time.Time     // when its client released it; zero when it did not
	// decliner is who declined it, while it is declined: the client's MAC, since anybody can make up
	// identifiers. Anybody can make up MACs, too, so declined addresses are offered again when nothing else
	// is free.
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

// restore puts one lease from the disk into the table; false when no subnet contains its address.
func (t *Table) restore(l Lease) bool {
	at := slices.IndexFunc(t.subnets, func(s *subnet) bool { return s.Prefix.Contains(l.Addr) })
	if at < 0 {
		return false
	}
	e := t.takeLocked(at, number(l.Addr))
	e.MAC, e.Host, e.Reservation = l.MAC, l.Host, l.Reservation
	if l.State == Declined || l.Client == "" { // it belongs to nobody
		e.Client = l.Client
	} else {
		t.ownLocked(e, l.Client)
	}
	// The wall clock counts only here. After this, leases end by the monotonic clock, so setting the clock
	// ends none.
	now := t.cfg.Now()
	expires := now.Add(l.Expires.Sub(now))
	// The file does not say what the client was known by. It counts under its MAC until it renews.
	t.turnLocked(e, l.State, standing{l.Known, l.Alias, string(l.MAC)}, expires)
	return true
}

// Close writes what is waiting and closes the file.
func (t *Table) Close() error { return t.journal.close() }

// List is all leases that are on the disk and not free, in the order of their addresses.
func (t *Table) List() []Lease {
	return slices.DeleteFunc(t.All(), func(l Lease) bool { return l.State == Offered })
}

// All returns the leases of List and those that are only offered.
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

// takeLocked returns the entry of an address, and makes it when there is none.
func (t *Table) takeLocked(subnet int, n uint32) *entry {
	e := t.at[n]
	if e == nil {
		e = &entry{Lease: Lease{Addr: address(n), State: Free}, subnet: subnet, due: -1}
		t.at[n] = e
	}
	return e
}

// ownLocked makes the client the owner of an entry. If it has an offer of another address there, that ends.
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

// count adds n to the subnet's count of addresses like this entry's, if the entry is offered or bound.
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

// unlist takes an entry out of the subnet's lists free and declined.
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

// turnLocked changes the state of an entry, with the counts, lists and expiry that depend on it.
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

// pooled says whether an address is in a pool and not excepted.
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

// Except takes an address out of the pools. taken says that a client has it; its lease l goes on until it
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
	if e != nil { // only addresses of a pool are counted and listed
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

// Of is the lease that a client has or had in a subnet; ok is false when it never had one, or another client
// has had it since.
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
