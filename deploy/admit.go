package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// An arrival is a stranger that is being let in. It takes its place at once, under a lock that is not held
// while the disk works, so strangers that arrive together share transactions.
type arrival struct {
	machine inventory.Machine
	from    string
	goes    *stranger     // deleted to make room; nil when there is room
	over    chan struct{} // closed when it was let in or refused
}

// admit lets in a stranger that registers from an address. Two registrations of a MAC at once give one
// machine.
func (e *Engine) admit(
	ctx context.Context, m inventory.Machine, from string, events ...inventory.Event,
) (*worker, error) {
	mac := m.MACs[0]
	for {
		a, mine, err := e.arrive(m, from)
		switch {
		case err != nil:
			return nil, err
		case mine:
			defer e.arrived(a)
			return e.letIn(ctx, a, events)
		}
		select {
		case <-a.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if w := e.recognize(mac, ""); w != nil {
			return w, nil
		}
	}
}

// arrive takes a place for a stranger, or finds the registration that has already taken one for its MAC.
func (e *Engine) arrive(m inventory.Machine, from string) (a *arrival, mine bool, err error) {
	e.admitting.Lock()
	defer e.admitting.Unlock()
	if other := e.arriving[m.MACs[0]]; other != nil {
		return other, false, nil
	}
	if e.cfg.Policy == PolicyAuto {
		if err := e.roomForAny(from); err != nil {
			return nil, false, err
		}
	}
	now := e.cfg.Now()
	all := e.strangers()
	for _, a := range e.arriving {
		all = append(all, stranger{from: a.from, heard: now, arriving: true})
	}
	goes, err := makeRoom(all, from, now)
	if err != nil {
		return nil, false, err
	}
	m.ID, m.Name = e.assignName(m)
	for _, other := range e.arriving {
		if other.machine.Name == m.Name {
			m.Name = longName(m.MACs[0])
		}
	}
	a = &arrival{machine: m, from: from, goes: goes, over: make(chan struct{})}
	e.arriving[m.MACs[0]] = a
	if goes != nil {
		e.going[goes.worker.id] = true
	}
	return a, true, nil
}

// arrived frees the place that arrive took, once the machine has a worker or was refused.
func (e *Engine) arrived(a *arrival) {
	e.admitting.Lock()
	defer e.admitting.Unlock()
	delete(e.arriving, a.machine.MACs[0])
	if a.goes != nil {
		delete(e.going, a.goes.worker.id)
	}
	close(a.over)
}

func (e *Engine) letIn(ctx context.Context, a *arrival, events []inventory.Event) (*worker, error) {
	if a.goes != nil {
		err := a.goes.worker.forget(ctx, "", e.store.Batch,
			fmt.Sprintf("forgotten to make room for another machine that waits for approval; "+
				"last heard of at %s", a.goes.heard.UTC().Format(time.DateTime)))
		if err != nil && inventory.AsProblem(err).Code != inventory.CodeNotFound &&
			!errors.Is(err, errApproved) {
			return nil, err
		}
	}
	if e.stopping() {
		// The worker of the stranger that should go has ended then, and its record is still there.
		return nil, errStopping
	}
	return e.insert(e.store.Batch, a.machine, e.cfg.Log.With("from", a.from), events...)
}
