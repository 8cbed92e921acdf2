package boltdb

import (
	"encoding/binary"

	"github.com/pxectl/pxectl/inventory"
)

// AppendErasure records that a disk was erased, and gives the record the next sequence number.
func (tx *Tx) AppendErasure(r inventory.Erasure) error {
	seq, err := tx.tx.Bucket(bucketErasures).NextSequence()
	if err != nil {
		return err
	}
	r.Seq = seq
	return put(tx, bucketErasures, string(seqKey(seq)), r)
}

// Erasures lists up to limit records that wanted accepts, newest first: those with a sequence number below
// before, or, when that is 0, the last ones.
func (tx *Tx) Erasures(
	before uint64, limit int, wanted func(inventory.Erasure) bool,
) ([]inventory.Erasure, error) {
	c := tx.tx.Bucket(bucketErasures).Cursor()
	k, raw := c.Last()
	if before != 0 {
		if k, _ = c.Seek(seqKey(before)); k == nil {
			k, raw = c.Last()
		} else {
			k, raw = c.Prev()
		}
	}
	var out []inventory.Erasure
	for ; k != nil && len(out) < limit; k, raw = c.Prev() {
		var r inventory.Erasure
		if err := decode(k, raw, &r); err != nil {
			return nil, err
		}
		r.Seq = binary.BigEndian.Uint64(k) // older records do not have it
		if wanted(r) {
			out = append(out, r)
		}
	}
	return out, nil
}
