// Package turns lets few do at a time what many ask for. The address that has had no turn for longest is
// next, so whoever asks a thousand times keeps nobody else waiting.
package turns

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// remembered is how many turns back an address is known to have had one.
const remembered = 4096

// Turns are given to the address that has had none for longest.
type Turns struct {
	each int // an address may have

	mu    sync.Mutex
	free  int
	has   map[string]int
	waits map[string][]chan struct{} // by address; closed when it is the waiter's turn
	round []string                   // the addresses that wait, in the order in which they came

	// An address that gave up waiting keeps its rank: it comes before those that were served meanwhile.
	served map[string]uint64 // number of the last turn, by address
	given  uint64            // turns so far
}

// New returns turns of which all may be taken at a time, and each by one address.
func New(all, each int) *Turns {
	return &Turns{
		each: each, free: all,
		has: map[string]int{}, waits: map[string][]chan struct{}{}, served: map[string]uint64{},
	}
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

// giveLocked gives the free turns away.
func (t *Turns) giveLocked() {
	for t.free > 0 {
		next, found := "", false
		for _, address := range t.round {
			if t.has[address] < t.each && (!found || t.served[address] < t.served[next]) {
				next, found = address, true
			}
		}
		if !found {
			return
		}
		t.free--
		t.has[next]++
		t.given++
		t.served[next] = t.given
		close(t.waits[next][0])
		t.leaveLocked(next, 0)
	}
	if len(t.served) > 2*remembered {
		maps.DeleteFunc(t.served, func(_ string, n uint64) bool { return n+remembered < t.given })
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
