package deploy

import (
	"context"
	"sync"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// An orderBox holds the order that the agent is to do now. The worker sets it, and the agent's calls wait for
// it.
type orderBox struct {
	mu      sync.Mutex
	order   *inventory.Order
	changed chan struct{} // closed when the order changes
}

// set replaces the order; nil removes it. The same order again is no change.
func (b *orderBox) set(o *inventory.Order) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if (o == nil && b.order == nil) || (o != nil && b.order != nil && o.ID == b.order.ID) {
		return
	}
	b.order = o
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *orderBox) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.order != nil
}

// is says whether the current order has that id.
func (b *orderBox) is(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.order != nil && b.order.ID == id
}

// wait returns the current order, or one that is set within d, or nil.
func (b *orderBox) wait(ctx context.Context, d time.Duration) *inventory.Order {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		b.mu.Lock()
		order, changed := b.order, b.changed
		b.mu.Unlock()
		if order != nil {
			return order
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
