// Package backoff says how long to wait before something is tried again.
package backoff

import (
	"math/rand/v2"
	"time"
)

// A Backoff is a row of waits. Each is twice the one before, up to Most, and half of it is random: a rack that lost its
// appliance must not come back as one.
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

// Reset begins anew with First, after something went well.
func (b *Backoff) Reset() { b.next = 0 }
