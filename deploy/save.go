package deploy

import (
	"fmt"
	"slices"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/timeline"
)

// A change modifies copies of the machine and its deployment for one transaction, and returns its events. It
// replaces slices and maps, and never writes into them: readers hold the old ones.
type change func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event

// save runs a change and writes machine, deployment and events in one transaction. Others see it only after
// that.
func (w *worker) save(f change) error { return w.saveAfter(f, func(*boltdb.Tx) error { return nil }) }

// saveAfter is save with something that the same transaction writes first, such as an earlier deployment: a
// change sees only the machine's last.
func (w *worker) saveAfter(f change, before func(*boltdb.Tx) error) error {
	old := w.snap.Load()
	next := snapshot{m: old.m, command: old.command}
	d := inventory.Deployment{}
	if old.d != nil {
		d = *old.d
		d.History = slices.Clone(d.History)
	}
	events := timeline.AtMost(timeline.PerTransaction-1, f(&next.m, &d))
	if d.ID != "" {
		next.d = &d
	}
	byAgent := !old.running() && !next.running() &&
		!slices.ContainsFunc(events, func(ev inventory.Event) bool { return ev.Actor != "" })
	if next.m.State != old.m.State {
		next.m.ChangedAt = w.now()
		events = append(events, inventory.Event{
			Kind: inventory.KindState, Text: fmt.Sprintf("%s → %s", old.m.State, next.m.State),
		})
	}
	var last uint64
	update := w.e.store.Update
	if old.m.State == inventory.Discovered && next.m.State == inventory.Discovered {
		// There may be thousands of strangers, and a known machine's transaction waits for theirs.
		update = w.e.store.Batch
	}
	err := update(func(tx *boltdb.Tx) error {
		if err := before(tx); err != nil {
			return err
		}
		if err := tx.PutMachine(next.m); err != nil {
			return err
		}
		if next.d != nil {
			if err := tx.PutDeployment(*next.d); err != nil {
				return err
			}
			for _, r := range newErasures(old.d, next.d) {
				if err := tx.AppendErasure(r); err != nil {
					return err
				}
			}
		}
		for i := range events {
			events[i] = timeline.Bounded(events[i])
			events[i].Machine, events[i].At = w.id, w.now()
			// Anybody can get a nonce with a boot script, and then cause an agent's events as often as they
			// like: they count as events of the network.
			events[i].Wire = events[i].Wire || events[i].Kind == inventory.KindAgent
			if err := tx.AppendEvent(&events[i]); err != nil {
				return err
			}
			last = events[i].Seq
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: write the store: %w", old.m.Name, err)
	}
	w.snap.Store(&next)
	if reached(old.m.BMC) != reached(next.m.BMC) {
		w.opened.forget()
	}
	if next.m.Report != old.m.Report {
		w.reportSize.Store(int64(next.m.Report.Weight()))
	}
	if last > 0 {
		w.e.timeline.EndRepeats(w.id, last)
		w.e.timeline.Wrote(last)
	}
	for _, ev := range events {
		// A state that changes without an operator or a deployment changes because an agent called.
		w.say(ev, ev.Wire || byAgent && ev.Kind == inventory.KindState)
	}
	return nil
}

// say puts an event in the log as well.
func (w *worker) say(ev inventory.Event, byWire bool) {
	log := w.log()
	if byWire {
		log = w.wireLog()
	}
	if ev.Actor != "" {
		log = log.With("actor", ev.Actor)
	}
	log.Info(ev.Text, "kind", ev.Kind)
}

// newErasures returns the erasures that a change has added.
func newErasures(old, next *inventory.Deployment) []inventory.Erasure {
	if old == nil || old.ID != next.ID {
		return nil
	}
	return next.Erased[len(old.Erased):]
}
