// Package observe tells an observer what happened without waiting for it. Servers go on while the observer is
// slow, and after it has panicked.
package observe

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
)

const (
	// waiting is how many values an observer may be behind: enough for a rack of 1000 machines that is
	// switched on at once.
	waiting = 4096
	// stopGrace is how long Close waits for the observer.
	stopGrace = time.Second
	// sayEvery is the time between two lines in the log about values left out.
	sayEvery = time.Minute
)

// A Queue passes values to an observer, in their order. New makes one.
type Queue[T any] struct {
	what  string
	full  string // what the log says when values are left out
	tell  func(T)
	log   *slog.Logger
	ended chan struct{}

	mu     sync.RWMutex // held for reading while a value is queued, for writing by Close
	values chan T
	closed bool

	lost  atomic.Uint64
	began time.Time
	next  atomic.Int64 // nanoseconds from there until the log may say so again: the time of day may be set
}

// New starts to pass values of the queue to an observer. what names them in the log: "DHCP packets".
func New[T any](log *slog.Logger, what string, tell func(T)) *Queue[T] {
	return begin(log, what, "the timeline does not keep up with "+what, tell)
}

func begin[T any](log *slog.Logger, what, full string, tell func(T)) *Queue[T] {
	q := &Queue[T]{
		what: what, full: full, tell: tell, log: log,
		values: make(chan T, waiting), ended: make(chan struct{}), began: time.Now(),
	}
	go q.run()
	return q
}

// Put queues a value and never waits. When the observer is too far behind, Put leaves the value out and
// counts it.
func (q *Queue[T]) Put(v T) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return
	}
	select {
	case q.values <- v:
	default:
		lost := q.lost.Add(1)
		now, next := int64(time.Since(q.began)), q.next.Load()
		if now >= next && q.next.CompareAndSwap(next, now+int64(sayEvery)) {
			go q.say(lost) // whoever puts a value may hold a lock, and the log may be slow
		}
	}
}

// Lost is how many values were left out.
func (q *Queue[T]) Lost() uint64 { return q.lost.Load() }

// Close gives the observer a second at most for the values in the queue.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.values)
	}
	q.mu.Unlock()
	select {
	case <-q.ended:
	case <-time.After(stopGrace):
	}
}

func (q *Queue[T]) run() {
	defer close(q.ended)
	defer bug.Recover(q.log, "tell of "+q.what)
	for v := range q.values {
		q.one(v)
	}
}

// say tells that values were left out.
func (q *Queue[T]) say(lost uint64) {
	defer bug.Recover(q.log, "tell of "+q.what)
	q.log.Warn(q.full, "left_out", lost)
}

func (q *Queue[T]) one(v T) {
	defer bug.Recover(q.log, "tell of "+q.what)
	q.tell(v)
}
