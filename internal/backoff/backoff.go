// Package backoff says how long to wait before something is tried again.
package backoff

import (
	"math/rand/v2"
	"time"
)

// A Backoff is a series of waits. Each is twice the one before, up to Most, and half of it is random: the
// machines of a rack that lost its appliance must not come back all at once.
type Backoff struct {
	First, Most time.Duration

	next time.Duration
}

// Next returns how long to wait now.
func (b *Backoff) Next() time.Duration {
	wait := max(b.next, b.First)
	b.next = min(2*wait, b.Most)
	return wait/2 + rand.N(wait/2+1)
}

// Reset begins anew with First. Call it after a success.
func (b *Backoff) Reset() { b.next = 0 }
