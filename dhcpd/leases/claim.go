package leases

import (
	"net/netip"
	"slices"
	"time"
)

// Offer finds an address for a client and holds it for a minute. A client that has an address is offered
// that. Offers are not written to the disk.
func (t *Table) Offer(c Claim) (Lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sweepLocked(now)
	c.Known = t.knownLocked(c)
	n, err := t.pickLocked(c)
	if err != nil {
		return Lease{}, err
	}
	e := t.takeLocked(c.Subnet, n)
	if e.State == Bound {
		return e.Lease, nil
	}
	again := e.State == Declined
	t.ownLocked(e, c.Client)
	e.MAC, e.Host, e.Reservation = slices.Clone(c.MAC), c.Host, c.Reservation
	if n != reserved(c) {
		e.Reservation = ""
	}
	e.given = now
	t.turnLocked(e, Offered, c.standing(), now.Add(offerFor))
	l := e.Lease
	l.Doubtful = again
	return l, nil
}

// knownLocked says whether a lease of the client counts as a known machine's. The number is limited, since
// anybody can put a known machine's MAC into packets, with any client identifiers.
func (t *Table) knownLocked(c Claim) bool {
	if !c.Known {
		return false
	}
	if own := t.of[holder{c.Subnet, c.Client}]; own != nil && own.State != Free && own.Known &&
		own.by == c.KnownBy {
		return true // this lease is counted already
	}
	held := t.subnets[c.Subnet].known[c.KnownBy]
	return held.all < knownLeases && (!c.Alias || held.aliases < knownLeases-1)
}

func (c Claim) standing() standing { return standing{c.Known, c.Alias, c.KnownBy} }

// Bind gives an address to a client until it expires, or returns why not. Without an error done is called
// once, from another goroutine, when the lease is on the disk or could not be written.
func (t *Table) Bind(c Claim, a netip.Addr, expires time.Time, done func(error)) error {
	if t.journal.full() {
		return ErrBusy
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sweepLocked(now)
	n := number(a)
	c.Known = t.knownLocked(c)
	if err := t.mayLocked(c, n); err != nil {
		return err
	}
	e := t.takeLocked(c.Subnet, n)
	if e.State != Bound || !c.Renews {
		e.given = now
	}
	t.ownLocked(e, c.Client)
	e.MAC, e.Host, e.Reservation = slices.Clone(c.MAC), c.Host, ""
	if n == reserved(c) {
		e.Reservation = c.Reservation
	}
	t.turnLocked(e, Bound, c.standing(), expires)
	return t.journal.add(done, e.Lease)
}

// Refuse takes an offer back that the client did not want.
func (t *Table) Refuse(subnet int, client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.of[holder{subnet, client}]; e != nil && e.State == Offered {
		t.turnLocked(e, Free, e.standing(), t.cfg.Now())
	}
}

// Release frees an address that its client gives back. ok is false when the client does not hold it.
func (t *Table) Release(client string, a netip.Addr, done func(error)) (ok bool, err error) {
	if t.journal.full() {
		return false, ErrBusy
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sweepLocked(now)
	e := t.at[number(a)]
	if e == nil || e.Client != client || e.State != Bound {
		return false, nil
	}
	t.turnLocked(e, Free, e.standing(), now)
	e.freed = now
	return true, t.journal.add(done, e.Lease)
}

// Decline takes an address out of use, since its client found that somebody else uses it. It fails with
// ErrNotGiven when the client was not given the address a moment ago. One client keeps a few addresses out of
// use at most: back is the one that is free again instead, if any. Without an error done is called once, as
// by Bind.
func (t *Table) Decline(client string, a netip.Addr, done func(back netip.Addr, err error)) error {
	if t.journal.full() {
		return ErrBusy
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sweepLocked(now)
	e := t.at[number(a)]
	if e == nil || e.Client != client || e.State != Bound && e.State != Offered ||
		now.Sub(e.given) > declineWithin {
		return ErrNotGiven
	}
	s := t.subnets[e.subnet]
	until := now.Add(declineReservedFor)
	if s.pooled(number(a)) {
		until = now.Add(declineFor)
	}
	if h := (holder{e.subnet, client}); t.of[h] == e {
		delete(t.of, h)
	}
	t.turnLocked(e, Declined, e.standing(), until)
	var back netip.Addr
	changed := []Lease{e.Lease}
	if first := s.oneTooMany(e); first != nil {
		t.turnLocked(first, Free, first.standing(), now)
		back = first.Addr
		changed = append(changed, first.Lease)
	}
	return t.journal.add(func(err error) { done(back, err) }, changed...)
}

// oneTooMany returns the first address that a client has declined, when the client keeps too many out of use.
func (s *subnet) oneTooMany(last *entry) *entry {
	if all := s.decliners[last.decliner]; len(all) > maxDeclines {
		return all[0]
	}
	return nil
}

// Delete forgets the lease of an address; the change is on the disk when it returns.
// ok is false when there is none.
func (t *Table) Delete(a netip.Addr) (l Lease, ok bool, err error) {
	written := make(chan error, 1)
	t.mu.Lock()
	t.sweepLocked(t.cfg.Now())
	e := t.at[number(a)]
	if e == nil || e.State != Bound && e.State != Declined {
		t.mu.Unlock()
		return Lease{}, false, nil
	}
	l = e.Lease
	t.turnLocked(e, Free, standing{}, t.cfg.Now())
	if h := (holder{e.subnet, e.Client}); t.of[h] == e {
		delete(t.of, h)
	}
	gone := e.Lease
	gone.Client = ""
	e.Client = ""
	err = t.journal.add(func(err error) { written <- err }, gone)
	t.mu.Unlock()
	if err == nil {
		err = <-written
	}
	return l, true, err
}

func reserved(c Claim) uint32 {
	if !c.Reserved.Is4() {
		return 0
	}
	return number(c.Reserved)
}

// reservedLocked says whether a client can have the address that is reserved for it. It can have it from
// another client with the same reservation: a machine's firmware, agent and system may send different client
// identifiers.
func (t *Table) reservedLocked(c Claim) bool {
	if !c.Reserved.Is4() {
		return false
	}
	e := t.at[number(c.Reserved)]
	switch {
	case e == nil, e.State == Free:
		return true
	case e.State == Declined:
		return false
	}
	return e.Client == c.Client || e.Reservation == c.Reservation
}

// pickLocked returns the best address for a client.
func (t *Table) pickLocked(c Claim) (uint32, error) {
	if t.reservedLocked(c) {
		return number(c.Reserved), nil
	}
	s := t.subnets[c.Subnet]
	own := t.of[holder{c.Subnet, c.Client}]
	usable := own != nil && s.pooled(number(own.Addr))
	if usable && own.State != Free {
		return number(own.Addr), nil
	}
	if !c.Known && s.unknown >= s.limit {
		return 0, t.shareLocked(s)
	}
	if usable {
		return number(own.Addr), nil
	}
	if c.Want.Is4() {
		if n := number(c.Want); s.pooled(n) &&
			(t.at[n] == nil || t.at[n].State == Free && !t.releasedLocked(t.at[n])) {
			return n, nil
		}
	}
	for i := range s.fresh {
		for f := &s.fresh[i]; f.next <= f.last; {
			n := f.next
			if f.next++; t.at[n] == nil && s.pooled(n) {
				return n, nil
			}
		}
	}
	if oldest := s.free.Front(); oldest != nil {
		return number(oldest.Value.(*entry).Addr), nil
	}
	// An address that somebody declined is better than none.
	if oldest := s.declined.Front(); oldest != nil {
		return number(oldest.Value.(*entry).Addr), nil
	}
	return 0, ErrExhausted
}

// releasedLocked says whether an address was released so lately that only its client may ask for it.
func (t *Table) releasedLocked(e *entry) bool {
	return !e.freed.IsZero() && t.cfg.Now().Sub(e.freed) < releasedFor
}

func (t *Table) shareLocked(s *subnet) error {
	if s.limit >= s.size {
		return ErrExhausted
	}
	return ErrShare
}

// mayLocked says why a client cannot have this address; nil when it can.
func (t *Table) mayLocked(c Claim, n uint32) error {
	s, e := t.subnets[c.Subnet], t.at[n]
	live := e != nil && e.State != Free
	if t.reservedLocked(c) {
		if n != reserved(c) {
			return ErrElsewhere
		}
		return nil
	}
	switch own := t.of[holder{c.Subnet, c.Client}]; {
	case !s.pooled(n):
		return ErrElsewhere
	case live && (e.State == Declined || e.Client != c.Client):
		return ErrTaken
	case e != nil && e.Client != c.Client && t.releasedLocked(e):
		return ErrTaken
	case live:
		return nil
	case own != nil && own != e && own.State != Free && s.pooled(number(own.Addr)):
		return ErrElsewhere
	case !c.Known && s.unknown >= s.limit:
		return t.shareLocked(s)
	}
	return nil
}
