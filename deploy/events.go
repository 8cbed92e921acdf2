package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Note puts an event on a timeline that somebody on the provisioning network caused. It never blocks: when
// the buffer is full, events are dropped and counted.
func (e *Engine) Note(ev inventory.Event) {
	ev.Wire = true
	e.note(ev)
}

// NoteOwn is Note for what the appliance itself did or found out. Nobody on the network can cause such events
// at will, so no flood pushes them out.
func (e *Engine) NoteOwn(ev inventory.Event) {
	ev.Wire = false
	e.note(ev)
}

func (e *Engine) note(ev inventory.Event) {
	if ev.At.IsZero() {
		ev.At = e.cfg.Now().UTC()
	}
	e.timeline.Note(ev)
}

// Events lists at most limit events after the one with that number, oldest first: of one machine, or of all
// when it is "".
func (e *Engine) Events(after uint64, machine inventory.MachineID, limit int) ([]inventory.Event, error) {
	var out []inventory.Event
	err := e.store.View(func(tx *boltdb.Tx) (err error) {
		if machine == "" {
			out, err = tx.Events(after, limit)
			return err
		}
		m, err := tx.Machine(machine)
		if err != nil {
			return err
		}
		out, err = tx.Timeline(m, after, limit)
		return err
	})
	if errors.Is(err, boltdb.ErrNotFound) {
		return nil, &inventory.Problem{
			Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no machine %q", machine),
		}
	}
	return out, err
}

// Wait returns when there is an event after the one with that number, or with ctx's error.
func (e *Engine) Wait(ctx context.Context, after uint64) error { return e.timeline.Wait(ctx, after) }

// Dropped is how many events could not be recorded since the start.
func (e *Engine) Dropped() uint64 { return e.timeline.Dropped() }
