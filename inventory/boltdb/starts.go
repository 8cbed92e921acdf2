package boltdb

import (
	"encoding/binary"
)

// KeptStarts is how many starts are kept: more than an appliance that crashes again and again has while one
// machine boots.
const KeptStarts = 64

// A Start is one start of the appliance. Starts order events without a clock, which can be set. A database
// from a backup counts on from the backup; the salt distinguishes its starts from those after the backup.
type Start struct {
	Number uint32 `json:"number"` // from 1
	Salt   []byte `json:"salt"`
}

// NewStart records a start and returns the kept starts, this one last.
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
