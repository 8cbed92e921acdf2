package boltdb

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/pxectl/pxectl/inventory"
)

// tell writes events of a machine.
func tell(t *testing.T, s *Store, id inventory.MachineID, n int, wire bool) {
	t.Helper()
	for n > 0 {
		update(t, s, func(tx *Tx) error {
			for ; n > 0; n-- {
				if err := tx.AppendEvent(&inventory.Event{
					Machine: id, Text: fmt.Sprintf("%0300d", n),
					Wire: wire,
				}); err != nil {
					return err
				}
				if n%500 == 0 {
					n--
					return nil
				}
			}
			return nil
		})
	}
}

// kept returns the number of events of each machine.
func kept(t *testing.T, s *Store) map[inventory.MachineID]int {
	t.Helper()
	n := map[inventory.MachineID]int{}
	err := s.View(func(tx *Tx) error {
		events, err := tx.Events(0, 1<<20)
		for _, e := range events {
			n[e.Machine]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Machines that wait for approval keep few events each, and all together no more than a bound, whoever comes
// and goes. The one with the most loses some. Known machines keep theirs, and so does a stranger with few.
func TestEventsOfStrangers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	stranger := func(i int) inventory.Machine {
		m := machine(fmt.Sprintf("m-%d", i), fmt.Sprint("s", i))
		m.State = inventory.Discovered
		return m
	}
	const many = 120 // of 200 events each: more than there may be
	known := machine("m-known", "known")
	known.State = inventory.Available
	quiet := machine("m-!", "quiet") // the first in the file
	for _, m := range []inventory.Machine{known, quiet} {
		update(t, s, func(tx *Tx) error { return tx.PutMachine(m) })
	}
	tell(t, s, known.ID, 500, true)
	tell(t, s, quiet.ID, 20, true)
	var size int64
	for round := range 2 {
		for i := range many {
			m := stranger(i)
			update(t, s, func(tx *Tx) error { return tx.PutMachine(m) })
			tell(t, s, m.ID, PerStranger+10, true)
			tell(t, s, m.ID, 5, false)
			if i%10 == 9 { // one is deleted
				update(t, s, func(tx *Tx) error { return tx.DeleteMachine(m.ID) })
			}
		}
		all, has := 0, kept(t, s)
		for id, n := range has {
			if id != known.ID {
				all += n
			}
			if id != known.ID && n > PerStranger+10 {
				t.Errorf("%d events of %s are kept, want %d at most", n, id, PerStranger+10)
			}
		}
		if all > OfStrangers || all < OfStrangers*9/10 || has[known.ID] != 500 || has[quiet.ID] != 20 {
			t.Errorf("of all strangers %d events are kept, of a known machine %d, of a quiet stranger %d; "+
				"want about %d, 500 and 20", all, has[known.ID], has[quiet.ID], OfStrangers)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 && st.Size() > 2*size {
			t.Errorf("the file grows from %d to %d bytes, while the events are as many as before", size,
				st.Size())
		}
		size = st.Size()
	}
	// An approved machine is no stranger.
	quiet.State = inventory.Enrolled
	update(t, s, func(tx *Tx) error { return tx.PutMachine(quiet) })
	tell(t, s, quiet.ID, 1000, true)
	if n := kept(t, s)[quiet.ID]; n != 1020 {
		t.Errorf("%d events of an approved machine are kept, want 1020", n)
	}
	// A file of an older release has no counts.
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketStrangers) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	tell(t, s, "m-0", PerStranger, true)
	if n := kept(t, s); n["m-0"] > PerStranger+10 || n[quiet.ID] != 1020 {
		t.Errorf("after the update %d events of a stranger are kept, and %d of an approved machine", n["m-0"],
			n[quiet.ID])
	}
}
