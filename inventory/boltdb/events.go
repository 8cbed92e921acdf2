package boltdb

import (
	"bytes"
	"encoding/binary"

	"github.com/pxectl/pxectl/inventory"
)

// A timeline is bounded: a machine that boots in a loop for a year costs what a good one costs.
const (
	// PerMachine is how many events of one machine are kept; a deployment writes about 60.
	PerMachine = 2000
	// Unowned is how many events of packets that no known machine sent are kept, all together: a flood of
	// invented MACs pushes out only its like.
	Unowned = 5000
)

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func ownedKey(owner string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(owner), 0), seq)
}

// AppendEvent gives e the next sequence number and writes it. The owner's oldest events past the bound are dropped when the
// transaction ends.
func (tx *Tx) AppendEvent(e *inventory.Event) error {
	events := tx.tx.Bucket(bucketEvents)
	seq, err := events.NextSequence()
	if err != nil {
		return err
	}
	e.Seq = seq
	raw, err := seal(e)
	if err != nil {
		return err
	}
	if err := events.Put(seqKey(seq), raw); err != nil {
		return err
	}
	owner := string(e.Machine)
	if err := tx.tx.Bucket(bucketOwned).Put(ownedKey(owner, seq), nil); err != nil {
		return err
	}
	tx.counted(owner, tx.count(owner)+1)
	return nil
}

// settle writes what the transaction has counted, once for each owner and not for each event.
func (tx *Tx) settle() error {
	for owner, n := range tx.counts {
		limit := uint64(PerMachine)
		if owner == "" {
			limit = Unowned
		}
		if n > limit {
			if err := tx.trim(owner, limit); err != nil {
				return err
			}
			n = tx.counts[owner]
		}
		var err error
		if n == 0 {
			err = tx.tx.Bucket(bucketCounts).Delete(countKey(owner))
		} else {
			err = tx.tx.Bucket(bucketCounts).Put(countKey(owner), seqKey(n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// counted notes how many events an owner has, for settle.
func (tx *Tx) counted(owner string, n uint64) {
	if tx.counts == nil {
		tx.counts = map[string]uint64{}
	}
	tx.counts[owner] = n
}

// RepeatEvent writes e in the place of the event with that number, which says the same of the same owner: it is taken
// away, if it is still there, and e becomes the newest.
func (tx *Tx) RepeatEvent(seq uint64, e *inventory.Event) error {
	owner := string(e.Machine)
	owned, key := tx.tx.Bucket(bucketOwned), ownedKey(owner, seq)
	if k, _ := owned.Cursor().Seek(key); bytes.Equal(k, key) {
		if err := owned.Delete(key); err != nil {
			return err
		}
		if err := tx.tx.Bucket(bucketEvents).Delete(seqKey(seq)); err != nil {
			return err
		}
		tx.counted(owner, tx.count(owner)-1)
	}
	return tx.AppendEvent(e)
}

// countKey is never empty: bbolt refuses empty keys, and unowned events have the owner "".
func countKey(owner string) []byte { return append([]byte{'#'}, owner...) }

func (tx *Tx) count(owner string) uint64 {
	if n, ok := tx.counts[owner]; ok {
		return n
	}
	if raw := tx.tx.Bucket(bucketCounts).Get(countKey(owner)); len(raw) == 8 {
		return binary.BigEndian.Uint64(raw)
	}
	return 0
}

// trim drops the oldest events of an owner until keep are left.
func (tx *Tx) trim(owner string, keep uint64) error {
	n := tx.count(owner)
	owned, events := tx.tx.Bucket(bucketOwned), tx.tx.Bucket(bucketEvents)
	prefix := append([]byte(owner), 0)
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
	tx.counted(owner, n)
	return nil
}

// Events lists up to limit events with Seq > after, oldest first.
func (tx *Tx) Events(after uint64, limit int) ([]inventory.Event, error) {
	var out []inventory.Event
	c := tx.tx.Bucket(bucketEvents).Cursor()
	for k, raw := c.Seek(seqKey(after + 1)); k != nil && len(out) < limit; k, raw = c.Next() {
		var e inventory.Event
		if err := unseal(k, raw, &e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Timeline lists up to limit events with Seq > after, oldest first, that are m's: its own, and those of its MACs from
// before it was known.
func (tx *Tx) Timeline(m inventory.Machine, after uint64, limit int) ([]inventory.Event, error) {
	macs := map[inventory.MAC]bool{}
	for _, mac := range m.MACs {
		macs[mac] = true
	}
	// Two runs in order of sequence, merged: the machine's own and the unowned ones of its MACs.
	own, stranger := tx.run(string(m.ID), after), tx.run("", after)
	var out []inventory.Event
	for len(out) < limit {
		e, err := own.peek(nil)
		if err != nil {
			return nil, err
		}
		s, err := stranger.peek(func(e *inventory.Event) bool { return macs[e.MAC] })
		if err != nil {
			return nil, err
		}
		switch {
		case e == nil && s == nil:
			return out, nil
		case s == nil || (e != nil && e.Seq < s.Seq):
			out = append(out, *e)
			own.next = nil
		default:
			out = append(out, *s)
			stranger.next = nil
		}
	}
	return out, nil
}

// A run walks one owner's events.
type run struct {
	tx     *Tx
	prefix []byte
	seek   []byte
	next   *inventory.Event
}

func (tx *Tx) run(owner string, after uint64) *run {
	return &run{tx: tx, prefix: append([]byte(owner), 0), seek: ownedKey(owner, after+1)}
}

// peek returns the next event that want accepts, or nil at the end, and keeps returning it until next is cleared.
func (r *run) peek(want func(*inventory.Event) bool) (*inventory.Event, error) {
	c := r.tx.tx.Bucket(bucketOwned).Cursor()
	for r.next == nil {
		k, _ := c.Seek(r.seek)
		if !bytes.HasPrefix(k, r.prefix) || len(k) != len(r.prefix)+8 {
			return nil, nil
		}
		seq := k[len(r.prefix):]
		r.seek = append(bytes.Clone(r.prefix), seqKey(binary.BigEndian.Uint64(seq)+1)...)
		var e inventory.Event
		if err := unseal(seq, r.tx.tx.Bucket(bucketEvents).Get(seq), &e); err != nil {
			return nil, err
		}
		if want == nil || want(&e) {
			r.next = &e
		}
	}
	return r.next, nil
}

// LastSeq is the number of the newest event ever written.
func (tx *Tx) LastSeq() uint64 { return tx.tx.Bucket(bucketEvents).Sequence() }
