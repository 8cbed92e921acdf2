package boltdb

import (
	"bytes"
	"encoding/binary"

	"github.com/pxectl/pxectl/inventory"
)

// A timeline is bounded: a machine that boots in a loop for a year costs no more than a good one. Events from
// the wire and events of workers and operators have separate quotas, so that forged packets displace no
// approval.
const (
	// PerMachine is how many events from the wire are kept for one machine.
	PerMachine = 2000
	// Unowned is how many events of unknown machines' packets are kept, all together: a flood of invented
	// MACs displaces only its own kind.
	Unowned = 5000
	// Recorded is how many events of workers and operators are kept: for each machine, and for events without
	// one. A deployment writes about 30.
	Recorded = 1000
)

// A share is the set of events under one quota: a machine's, or those without a machine ("").
type share struct {
	owner string
	wire  bool
}

// shareOf returns the share of an event.
func shareOf(e *inventory.Event) share { return share{string(e.Machine), e.Wire} }

func (tx *Tx) quota(s share) uint64 {
	switch {
	case tx.isStranger(s.owner):
		return PerStranger
	case !s.wire:
		return Recorded
	case s.owner == "":
		return Unowned
	}
	return PerMachine
}

// prefix begins the keys of the share in bucketOwned. No id has bytes below ' '.
func (s share) prefix() []byte {
	if s.wire {
		return append([]byte(s.owner), 1)
	}
	return append([]byte(s.owner), 0)
}

func (s share) key(seq uint64) []byte { return binary.BigEndian.AppendUint64(s.prefix(), seq) }

// countKey is never empty: bbolt refuses empty keys, and unowned events have the owner "".
func (s share) countKey() []byte {
	if s.wire {
		return append([]byte{'~'}, s.owner...)
	}
	return append([]byte{'#'}, s.owner...)
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// AppendEvent gives e the next sequence number and writes it. The oldest events of its share beyond the quota
// are dropped when the transaction ends.
func (tx *Tx) AppendEvent(e *inventory.Event) error {
	events := tx.tx.Bucket(bucketEvents)
	seq, err := events.NextSequence()
	if err != nil {
		return err
	}
	e.Seq = seq
	raw, err := encode(e)
	if err != nil {
		return err
	}
	if err := events.Put(seqKey(seq), raw); err != nil {
		return err
	}
	of := shareOf(e)
	if err := tx.tx.Bucket(bucketOwned).Put(of.key(seq), nil); err != nil {
		return err
	}
	tx.counted(of, tx.count(of)+1)
	return nil
}

// settle writes the counts of the transaction, once for each share and not for each event.
func (tx *Tx) settle() error {
	for of, n := range tx.counts {
		if quota := tx.quota(of); n > quota {
			if err := tx.trim(of, quota); err != nil {
				return err
			}
		}
		if err := tx.putCount(of); err != nil {
			return err
		}
	}
	return tx.settleStrangers()
}

func (tx *Tx) putCount(of share) error {
	n := tx.count(of)
	if n == 0 {
		return tx.tx.Bucket(bucketCounts).Delete(of.countKey())
	}
	return tx.tx.Bucket(bucketCounts).Put(of.countKey(), seqKey(n))
}

// counted notes the number of events of a share, for settle.
func (tx *Tx) counted(of share, n uint64) {
	if tx.counts == nil {
		tx.counts = map[share]uint64{}
	}
	tx.counts[of] = n
}

// RepeatEvent replaces the event with that number by e, which repeats it and is of the same share. It removes
// the old one, if it is still there, and e becomes the newest.
func (tx *Tx) RepeatEvent(seq uint64, e *inventory.Event) error {
	of := shareOf(e)
	owned, key := tx.tx.Bucket(bucketOwned), of.key(seq)
	if k, _ := owned.Cursor().Seek(key); bytes.Equal(k, key) {
		if err := owned.Delete(key); err != nil {
			return err
		}
		if err := tx.tx.Bucket(bucketEvents).Delete(seqKey(seq)); err != nil {
			return err
		}
		tx.counted(of, tx.count(of)-1)
	}
	return tx.AppendEvent(e)
}

func (tx *Tx) count(of share) uint64 {
	if n, ok := tx.counts[of]; ok {
		return n
	}
	if raw := tx.tx.Bucket(bucketCounts).Get(of.countKey()); len(raw) == 8 {
		return binary.BigEndian.Uint64(raw)
	}
	return 0
}

// trim drops the oldest events of a share until keep are left.
func (tx *Tx) trim(of share, keep uint64) error {
	n := tx.count(of)
	owned, events := tx.tx.Bucket(bucketOwned), tx.tx.Bucket(bucketEvents)
	prefix := of.prefix()
	var drop [][]byte
	c := owned.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && n > keep; k, _ = c.Next() {
		drop = append(drop, bytes.Clone(k))
		n--
	}
	for _, k := range drop {
		if err := events.Delete(k[len(prefix):]); err != nil {
			return err
		}
		if err := owned.Delete(k); err != nil {
			return err
		}
	}
	tx.counted(of, n)
	return nil
}

// Events lists up to limit events with Seq > after, oldest first.
func (tx *Tx) Events(after uint64, limit int) ([]inventory.Event, error) {
	var out []inventory.Event
	c := tx.tx.Bucket(bucketEvents).Cursor()
	for k, raw := c.Seek(seqKey(after + 1)); k != nil && len(out) < limit; k, raw = c.Next() {
		var e inventory.Event
		if err := decode(k, raw, &e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Timeline lists up to limit events of m with Seq > after, oldest first: its own, and those of its MACs from
// before it was known. A machine without an id is unknown and has only those of its MACs.
func (tx *Tx) Timeline(m inventory.Machine, after uint64, limit int) ([]inventory.Event, error) {
	macs := map[inventory.MAC]bool{}
	for _, mac := range m.MACs {
		macs[mac] = true
	}
	of := func(e *inventory.Event) bool { return macs[e.MAC] }
	// Merge the events of the machine and the unowned ones of its MACs, in order of sequence.
	runs := []*run{tx.run(share{"", false}, after, of), tx.run(share{"", true}, after, of)}
	if m.ID != "" {
		runs = append(runs, tx.run(share{string(m.ID), false}, after, nil),
			tx.run(share{string(m.ID), true}, after, nil))
	}
	var out []inventory.Event
	for len(out) < limit {
		var oldest *run
		for _, r := range runs {
			if err := r.peek(); err != nil {
				return nil, err
			}
			if r.next != nil && (oldest == nil || r.next.Seq < oldest.next.Seq) {
				oldest = r
			}
		}
		if oldest == nil {
			break
		}
		out = append(out, *oldest.next)
		oldest.next = nil
	}
	return out, nil
}

// A run walks the events of a share that want accepts.
type run struct {
	tx     *Tx
	want   func(*inventory.Event) bool // nil: all
	prefix []byte
	seek   []byte
	next   *inventory.Event // nil: not read yet, or none
}

func (tx *Tx) run(of share, after uint64, want func(*inventory.Event) bool) *run {
	return &run{tx: tx, want: want, prefix: of.prefix(), seek: of.key(after + 1)}
}

// peek reads the next event into next, unless it is there. next stays nil at the end.
func (r *run) peek() error {
	c := r.tx.tx.Bucket(bucketOwned).Cursor()
	for r.next == nil {
		k, _ := c.Seek(r.seek)
		if !bytes.HasPrefix(k, r.prefix) || len(k) != len(r.prefix)+8 {
			return nil
		}
		seq := k[len(r.prefix):]
		r.seek = append(bytes.Clone(r.prefix), seqKey(binary.BigEndian.Uint64(seq)+1)...)
		var e inventory.Event
		if err := decode(seq, r.tx.tx.Bucket(bucketEvents).Get(seq), &e); err != nil {
			return err
		}
		if r.want == nil || r.want(&e) {
			r.next = &e
		}
	}
	return nil
}

// LastSeq is the number of the newest event ever written.
func (tx *Tx) LastSeq() uint64 { return tx.tx.Bucket(bucketEvents).Sequence() }
