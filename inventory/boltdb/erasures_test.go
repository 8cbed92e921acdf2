package boltdb

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pxectl/pxectl/inventory"
)

// Pages of records have each record once, newest first, also old ones without their sequence number.
func TestErasuresInPages(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	var want []uint64
	for i := range 7 {
		update(t, s, func(tx *Tx) error {
			return tx.AppendErasure(inventory.Erasure{MachineName: fmt.Sprintf("m%d", i%2)})
		})
		want = append([]uint64{uint64(i + 1)}, want...)
	}
	update(t, s, func(tx *Tx) error { // as older releases wrote them
		return put(tx, bucketErasures, string(seqKey(3)), inventory.Erasure{MachineName: "m0"})
	})
	pages := func(before uint64, limit int, machine string) (seqs []uint64) {
		for {
			var page []inventory.Erasure
			err := s.View(func(tx *Tx) (err error) {
				page, err = tx.Erasures(before, limit, func(r inventory.Erasure) bool {
					return machine == "" || r.MachineName == machine
				})
				return err
			})
			if err != nil || len(page) > limit {
				t.Fatalf("%d records, %v, want at most %d", len(page), err, limit)
			}
			for _, r := range page {
				seqs = append(seqs, r.Seq)
			}
			if len(seqs) > len(want) {
				t.Fatalf("pages without end: %d", seqs)
			}
			if len(page) < limit {
				return seqs
			}
			before = page[len(page)-1].Seq
		}
	}
	for _, limit := range []int{1, 2, 3, 7, 100} {
		if got := pages(0, limit, ""); !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %d, want %d", limit, got, want)
		}
	}
	if got := pages(0, 2, "m1"); !slices.Equal(got, []uint64{6, 4, 2}) {
		t.Errorf("of one machine: %d, want 6, 4, 2", got)
	}
	if got := pages(100, 2, ""); !slices.Equal(got, want) {
		t.Errorf("before one that is not there yet: %d, want all", got)
	}
	if got := pages(1, 2, ""); got != nil {
		t.Errorf("before the first: %d, want none", got)
	}
}
