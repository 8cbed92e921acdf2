package deploy

import (
	"math"
	"sync/atomic"
	"time"
)

// The time of day can be set back and forth, by hand or by NTP, and by days where the battery of a board is
// empty. So it is used for timestamps alone. Durations (how long an agent is silent, how old a nonce is, what
// is left of a step's time) are measured by Config.Elapsed, which nobody sets.

// A stopwatch measures the time since it was last started.
type stopwatch struct{ at atomic.Int64 } // 1 + nanoseconds of Elapsed at the start; 0 before the first

func (s *stopwatch) start(elapsed time.Duration) { s.at.Store(int64(elapsed) + 1) }

// since says whether s was started after another one.
func (s *stopwatch) since(other *stopwatch) bool { return s.at.Load() > other.at.Load() }

func (s *stopwatch) ran() bool { return s.at.Load() != 0 }

// reads returns the time since the start; MaxInt64 when s was never started.
func (s *stopwatch) reads(elapsed time.Duration) time.Duration {
	at := s.at.Load()
	if at == 0 {
		return math.MaxInt64
	}
	return elapsed - time.Duration(at-1)
}

// due is the deadline of something, by Elapsed.
type due struct {
	what  string
	began time.Time
	at    time.Duration
}

// left returns the time until a deadline; negative when it has passed. The deadline is stored as a time of
// day, since it must outlive a restart. It is converted to Elapsed once, and again after a restart; from then
// on, setting the clock does not move it. It is never further away than it was at began.
func (w *worker) left(what string, began, deadline time.Time) time.Duration {
	if w.due.what != what || !w.due.began.Equal(began) {
		left := min(deadline.Sub(w.now()), deadline.Sub(began))
		w.due = due{what, began, w.e.cfg.Elapsed() + left}
	}
	return w.due.at - w.e.cfg.Elapsed()
}
