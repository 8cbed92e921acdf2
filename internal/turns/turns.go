// Package turns lets few do at a time what many ask for, with a turn for each address: whoever asks a
// thousand times keeps nobody else waiting for more than a round.
package turns

import (
	"context"
	"slices"
	"sync"
)

// Turns are given to one address after the other.
type Turns struct {
	each int // an address may have

	mu    sync.Mutex
	free  int
	has   map[string]int
	waits map[string][]chan struct{} // by address; closed when it is the waiter's turn
	round []string                   // the addresses that wait, in the order in which they are looked at
}

// New returns turns of which all may be taken at a time, and each by one address.
func New(all, each int) *Turns {
	return &Turns{each: each, free: all, has: map[string]int{}, waits: map[string][]chan struct{}{}}
}

// Take waits for a turn, until ctx ends. Whoever gets one must call end.
func (t *Turns) Take(ctx context.Context, address string) (end func(), err error) {
	mine := make(chan struct{})
	t.mu.Lock()
	if len(t.waits[address]) == 0 {
		t.round = append(t.round, address)
	}
	t.waits[address] = append(t.waits[address], mine)
	t.giveLocked()
	t.mu.Unlock()
	end = sync.OnceFunc(func() { t.end(address) })
	select {
	case <-mine:
		return end, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.waits[address], mine)
	if i >= 0 {
		t.leaveLocked(address, i)
	}
	t.mu.Unlock()
	if i < 0 { // its turn came meanwhile
		end()
	}
	return nil, ctx.Err()
}

func (t *Turns) end(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if t.has[address]--; t.has[address] == 0 {
		delete(t.has, address)
	}
	t.giveLocked()
}

// giveLocked gives the free turns away. An address that got one is looked at last the next time.
func (t *Turns) giveLocked() {
	for i := 0; t.free > 0 && i < len(t.round); {
		address := t.round[i]
		if t.has[address] >= t.each {
			i++
			continue
		}
		t.free--
		t.has[address]++
		close(t.waits[address][0])
		t.round = append(slices.Delete(t.round, i, i+1), address)
		t.leaveLocked(address, 0)
		i = 0
	}
}

// leaveLocked takes a waiter out, and its address with the last of them.
func (t *Turns) leaveLocked(address string, i int) {
	t.waits[address] = slices.Delete(t.waits[address], i, i+1)
	if len(t.waits[address]) > 0 {
		return
	}
	delete(t.waits, address)
	t.round = slices.DeleteFunc(t.round, func(a string) bool { return a == address })
}
