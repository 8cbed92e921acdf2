package turns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A flood from one address, and then from many, keeps another address waiting for one round at most.
func TestATurnForEachAddress(t *testing.T) {
	for _, c := range []struct {
		name             string
		addresses, calls int
		most             time.Duration // a turn takes a second, and 4 go on at a time
	}{
		{"a thousand calls of one address", 1, 1000, time.Second},
		{"ten calls of 100 addresses each", 100, 10, 25 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				turns := New(4, 2)
				var now sync.Map // how many go on at a time, in all and by address
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range c.addresses * c.calls {
					address := fmt.Sprint("them ", i%c.addresses)
					wg.Go(func() {
						end, err := turns.Take(ctx, address)
						if err != nil {
							return
						}
						defer end()
						now.Store(i, address)
						time.Sleep(time.Second)
						now.Delete(i)
					})
				}
				synctest.Wait()
				all, each := 0, map[string]int{}
				now.Range(func(_, address any) bool {
					all++
					each[address.(string)]++
					if each[address.(string)] > 2 {
						t.Errorf("%d turns of %s at a time, want 2 at most", each[address.(string)], address)
					}
					return true
				})
				if want := min(4, 2*c.addresses); all != want {
					t.Errorf("%d turns at a time, want %d", all, want)
				}
				start := time.Now()
				end, err := turns.Take(t.Context(), "us")
				if took := time.Since(start); err != nil || took > c.most {
					t.Errorf("another address waits for %v, %v, want at most %v", took, err, c.most)
				}
				end()
				end() // again is not another turn
				cancel()
				wg.Wait()
				if turns.free != 4 || len(turns.has)+len(turns.waits)+len(turns.round) != 0 {
					t.Errorf("when all is over, %+v is left", turns)
				}
			})
		})
	}
}

// Who does not wait any longer has no turn, and keeps none.
func TestNobodyWaitsForEver(t *testing.T) {
	turns := New(1, 1)
	end, err := turns.Take(t.Context(), "us")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := turns.Take(ctx, "them"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Take() beside one that does not end: %v", err)
	}
	end()
	if end, err = turns.Take(t.Context(), "us"); err != nil {
		t.Fatal(err)
	}
	end()
	if turns.free != 1 || len(turns.has)+len(turns.waits)+len(turns.round) != 0 {
		t.Errorf("when all is over, %+v is left", turns)
	}
}

// An address that gives up and comes again is next, although others have waited without a break: they have had
// turns meanwhile.
func TestWhoGaveUpIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 30 {
			for range 3 { // each of them waits always, and takes 10 s
				wg.Go(func() {
					for ctx.Err() == nil {
						if end, err := turns.Take(ctx, fmt.Sprint("them ", i)); err == nil {
							time.Sleep(10 * time.Second)
							end()
						}
					}
				})
			}
		}
		time.Sleep(310 * time.Second) // all of them have had a turn
		start := time.Now()
		for {
			ctx, enough := context.WithTimeout(t.Context(), 5*time.Second)
			end, err := turns.Take(ctx, "us")
			enough()
			if err == nil {
				end()
				break
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("a turn came after %v, want the next one, within 10 s", took)
		}
		cancel()
		wg.Wait()
	})
}

// What is remembered of addresses that come once has a bound.
func TestServedIsBounded(t *testing.T) {
	turns := New(1, 1)
	for i := range 5 * remembered {
		end, err := turns.Take(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		end()
	}
	if n := len(turns.served); n > 2*remembered+1 {
		t.Errorf("%d addresses are remembered, want at most %d", n, 2*remembered+1)
	}
}
