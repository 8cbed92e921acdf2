package boltdb

import (
	"path/filepath"
	"testing"
)

func TestStartsCountOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var starts []Start
	for range KeptStarts + 6 {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(func(tx *Tx) (err error) {
			starts, err = tx.NewStart([]byte("salt"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if n := len(starts); n != KeptStarts || starts[0].Number != 7 || starts[n-1].Number != KeptStarts+6 ||
		string(starts[n-1].Salt) != "salt" {
		t.Errorf("%d starts, from %+v to %+v, want the last %d", n, starts[0], starts[n-1], KeptStarts)
	}
}
