package deploy

import (
	"math"
	"sync/atomic"
	"time"
)

// The time of day can be set back and forth, by hand or by NTP, and by days where the battery of a board is
// empty. So it is used for timestamps alone. Durations (how long an agent is silent, how old a nonce is, what
// is left of a step's time) are measured by Config.Elapsed, which nobody sets.

// A stopwatch runs since it was last started.
type stopwatch struct{ at atomic.Int64 } // 1 and nanoseconds of Elapsed; 0 when it never was

func (s *stopwatch) start(elapsed time.Duration) { s.at.Store(int64(elapsed) + 1) }

// since says whether s was started after another one.
func (s *stopwatch) since(other *stopwatch) bool { return s.at.Load() > other.at.Load() }

func (s *stopwatch) ran() bool { return s.at.Load() != 0 }

// reads is for ever when it never was started.
func (s *stopwatch) reads(elapsed time.Duration) time.Duration {
	at := s.at.Load()
	if at == 0 {
		return math.MaxInt64
	}
	return elapsed - time.Duration(at-1)
}

// due is when the time of something is over, by Elapsed.
type due struct {
	what  string
	began time.Time
	at    time.Duration
}

// left is how much of its time something has. Its deadline is a time of day, since it outlives the appliance:
// it is read once, and again after a restart, and from then on a clock that is set moves it neither way. It
// is never further away than at the beginning.
func (w *worker) left(what string, began, deadline time.Time) time.Duration {
	if w.due.what != what || !w.due.began.Equal(began) {
		left := min(deadline.Sub(w.now()), deadline.Sub(began))
		w.due = due{what, began, w.e.cfg.Elapsed() + left}
	}
	return w.due.at - w.e.cfg.Elapsed()
}
