package backoff

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Most: 350 * time.Millisecond}
	for round := range 2 {
		for i, most := range []time.Duration{100, 200, 350, 350} {
			most *= time.Millisecond
			if got := b.Next(); got < most/2 || got > most {
				t.Errorf("round %d, wait %d = %v, want %v to %v", round, i, got, most/2, most)
			}
		}
		b.Reset()
	}
}

func TestHalfIsRandom(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		b := Backoff{First: time.Second, Most: time.Minute}
		seen[b.Next()] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different waits in 100, want nearly as many", len(seen))
	}
}
