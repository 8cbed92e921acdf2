package boltdb

import (
	"encoding/binary"
)

// KeptStarts is how many starts are remembered: more than an appliance that crashes over and over has while
// one machine boots.
const KeptStarts = 64

// A Start is one start of the appliance. Starts order what happened without a clock, which can be set. A
// database that was restored from a copy counts on from the copy; the salt tells its starts from those that
// the copy has not seen.
type Start struct {
	Number uint32 `json:"number"` // from 1
	Salt   []byte `json:"salt"`
}

// NewStart records another start and returns those that are remembered, this one last.
func (tx *Tx) NewStart(salt []byte) ([]Start, error) {
	b := tx.tx.Bucket(bucketStarts)
	n, err := b.NextSequence()
	if err != nil {
		return nil, err
	}
	if err := put(tx, bucketStarts, string(startKey(n)), Start{Number: uint32(n), Salt: salt}); err != nil {
		return nil, err
	}
	if n > KeptStarts {
		if err := b.Delete(startKey(n - KeptStarts)); err != nil {
			return nil, err
		}
	}
	return all[Start](tx, bucketStarts)
}

func startKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
