package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// A stranger is a machine that nobody announced and that waits for approval. Anybody can invent strangers, so
// their number is bounded, in all and for each address, and silent ones make room for new ones. So a flood of
// them locks no new machine out for ever.
const (
	// MaxStrangers is how many may wait for approval.
	MaxStrangers = 2000
	// StrangersPerAddress is how many of them may have registered from one address. Agents register from
	// their own; a rack behind a router that translates addresses has one.
	StrangersPerAddress = 64
	// strangerLife is how long a stranger may be silent: a rack that is switched off on Friday is still
	// listed on Monday.
	strangerLife = 72 * time.Hour
	// maxAdmitted is how many machines there may be in all under PolicyAuto.
	maxAdmitted = 4000
	// strangerSilent is how long a stranger is silent before it makes room for another one: an agent calls
	// every 20 s.
	strangerSilent = 10 * time.Minute
	strangerSweep  = 10 * time.Minute
)

type stranger struct {
	worker   *worker
	from     string    // address of its registration, which TCP has proved
	heard    time.Time // its agent's last call, by the clock as it is set now
	arriving bool      // it is being let in, and has no worker
}

// makeRoom returns the stranger to delete when another one registers from an address; nil when there is room.
// An address with StrangersPerAddress makes room only by its own silent ones. Otherwise silent ones go first,
// and when none is silent, one of the address with the most makes room for an address with fewer. In all
// other cases the new one is refused.
func makeRoom(all []stranger, from string, now time.Time) (*stranger, error) {
	byAddress := map[string]int{}
	for _, s := range all {
		byAddress[s.from]++
	}
	oldest := func(of func(stranger) bool) *stranger {
		var found *stranger
		for i, s := range all {
			if of(s) && !s.arriving && (found == nil || s.heard.Before(found.heard)) {
				found = &all[i]
			}
		}
		return found
	}
	silent := func(s stranger) bool { return now.Sub(s.heard) >= strangerSilent }
	const hint = "approve machines, or delete all that wait: `pxectl machine delete --discovered`"
	if byAddress[from] >= StrangersPerAddress {
		if s := oldest(func(s stranger) bool { return s.from == from && silent(s) }); s != nil {
			return s, nil
		}
		return nil, &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: fmt.Sprintf("%d machines that registered from %s wait for approval already",
				byAddress[from], from),
			Hint: hint,
		}
	}
	if len(all) < MaxStrangers {
		return nil, nil
	}
	if s := oldest(silent); s != nil {
		return s, nil
	}
	most := 0
	for _, n := range byAddress {
		most = max(most, n)
	}
	if most > byAddress[from] {
		if s := oldest(func(s stranger) bool { return byAddress[s.from] == most }); s != nil {
			return s, nil
		}
	}
	return nil, &inventory.Problem{
		Code:   inventory.CodeConflict,
		Detail: fmt.Sprintf("%d machines wait for approval already, none of them silent", len(all)),
		Hint:   hint,
	}
}

// roomForAny refuses a machine under PolicyAuto when there are too many machines, or too many that registered
// from its address. No machine is deleted to make room: its owner would not notice. e.admitting is held.
func (e *Engine) roomForAny(from string) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	same, all := 0, len(e.workers)+len(e.arriving)
	for _, a := range e.arriving {
		if a.from == from {
			same++
		}
	}
	for _, w := range e.workers {
		if b := w.snap.Load().m.Boot; w.from == from || b != nil && b.IP == from {
			same++
		}
	}
	const hint = "`discovery.policy: auto` lets in whoever asks; with `approve` silent ones make room. " +
		"Delete machines that are not yours: `pxectl machine delete`"
	switch {
	case same >= StrangersPerAddress:
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("%d machines registered from %s already", same, from),
			Hint:   hint,
		}
	case all >= maxAdmitted:
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("there are %d machines already", all),
			Hint:   hint,
		}
	}
	return nil
}

// strangers lists the machines that wait for approval, except those that are being deleted to make room.
// e.admitting is held.
func (e *Engine) strangers() []stranger {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var all []stranger
	now := e.cfg.Now()
	for _, w := range e.workers {
		if m := &w.snap.Load().m; m.State == inventory.Discovered && !e.going[w.id] {
			s := stranger{worker: w, from: w.from, heard: now.Add(-w.silence())}
			if m.Boot != nil {
				s.from = m.Boot.IP
			}
			all = append(all, s)
		}
	}
	return all
}

var errStopping = &inventory.Problem{
	Code: inventory.CodeTimeout, Detail: "the appliance is stopping", Hint: "call again",
}

// stopping says that Run has been told to end.
func (e *Engine) stopping() bool {
	ctx := e.lifetime()
	return ctx != nil && ctx.Err() != nil
}

// expireStrangers deletes strangers that were silent for strangerLife. It looks every strangerSweep until ctx
// ends.
func (e *Engine) expireStrangers(ctx context.Context) {
	for ctx.Err() == nil {
		e.expire(ctx)
		_ = sleep.For(ctx, strangerSweep)
	}
}

func (e *Engine) expire(ctx context.Context) {
	defer bug.Recover(e.cfg.Log, "forget silent strangers")
	e.admitting.Lock()
	all := e.strangers()
	e.admitting.Unlock()
	silent := slices.DeleteFunc(all, func(s stranger) bool { return e.cfg.Now().Sub(s.heard) < strangerLife })
	_, err := e.forgetAll(ctx, silent, "",
		fmt.Sprintf("not heard of for %d hours while it waited for approval: forgotten",
			int(strangerLife.Hours())))
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Error("forget silent strangers", "err", err)
	}
}

// DeleteDiscovered deletes every machine that waits for approval, and returns how many it deleted.
func (e *Engine) DeleteDiscovered(ctx context.Context, actor string) (int, error) {
	e.admitting.Lock()
	all := e.strangers()
	e.admitting.Unlock()
	n, err := e.forgetAll(ctx, all, actor, "")
	if n > 0 {
		ev := inventory.Event{
			At:    e.cfg.Now().UTC(),
			Kind:  inventory.KindState,
			Actor: actor,
			Text:  fmt.Sprintf("%d machines that waited for approval deleted", n),
		}
		if err := e.store.Update(func(tx *boltdb.Tx) error { return tx.AppendEvent(&ev) }); err != nil {
			return n, fmt.Errorf("note that %d machines were deleted: %w", n, err)
		}
		e.timeline.Wrote(ev.Seq)
		e.cfg.Log.Info(ev.Text, "actor", actor)
	}
	return n, err
}

// forgetAll deletes strangers, many in one transaction of the store. A machine that was approved meanwhile
// stays. It returns how many were deleted, and the first error.
func (e *Engine) forgetAll(ctx context.Context, all []stranger, actor, why string) (n int, err error) {
	slices.SortFunc(all, func(a, b stranger) int { return cmp.Compare(a.worker.id, b.worker.id) })
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, boltdb.BatchSize)
	for _, s := range all {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			defer bug.Recover(e.cfg.Log, "forget a stranger")
			gone := s.worker.forget(ctx, actor, e.store.Batch, why)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case gone == nil:
				n++
			case errors.Is(gone, errApproved), inventory.AsProblem(gone).Code == inventory.CodeNotFound:
			case err == nil:
				err = gone
			}
		})
	}
	wg.Wait()
	return n, err
}

var errApproved = errors.New("the machine was approved meanwhile")

// forget deletes a machine that still waits for approval. why is put on the timeline of its MAC; "" puts
// nothing there.
func (w *worker) forget(
	ctx context.Context, actor string, update func(func(*boltdb.Tx) error) error, why string,
) error {
	_, err := call(ctx, w, func() (struct{}, error) {
		m := w.snap.Load().m
		if m.State != inventory.Discovered {
			return struct{}{}, errApproved
		}
		return struct{}{}, w.remove(actor, update, why)
	})
	return err
}

// remove deletes the machine. It runs in the worker's loop, which then ends.
func (w *worker) remove(actor string, update func(func(*boltdb.Tx) error) error, why string) error {
	w.stopWork()
	m := w.snap.Load().m
	ev := inventory.Event{
		At:    w.now(),
		Kind:  inventory.KindState,
		Actor: actor,
		Text:  fmt.Sprintf("machine %s (%s) %s", m.Name, m.ID, why),
	}
	if len(m.MACs) > 0 {
		ev.MAC = m.MACs[0]
	}
	ev.Wire = actor == "" // without an operator it is a stranger, which anybody can invent
	err := update(func(tx *boltdb.Tx) error {
		if err := tx.DeleteMachine(w.id); err != nil || why == "" {
			return err
		}
		return tx.AppendEvent(&ev)
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", m.Name, err)
	}
	if why != "" {
		w.e.timeline.Wrote(ev.Seq)
		w.say(ev, ev.Wire)
	}
	w.orders.set(nil)
	w.deleted = true
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	delete(w.e.workers, w.id)
	for mac, other := range w.e.byMAC {
		if other == w {
			delete(w.e.byMAC, mac)
		}
	}
	return nil
}
