package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// CancelDeployment ends a running deployment. The machine keeps what was done to it so far.
func (e *Engine) CancelDeployment(
	ctx context.Context, actor string, id inventory.DeploymentID,
) (inventory.Deployment, error) {
	d, err := e.Deployment(string(id))
	if err != nil {
		return d, err
	}
	w, err := e.find(string(d.Machine))
	if err != nil {
		return d, err
	}
	return call(ctx, w, func() (inventory.Deployment, error) {
		s := w.snap.Load()
		if !s.running() || s.d.ID != d.ID {
			return d, &inventory.Problem{
				Code:   inventory.CodeConflict,
				Detail: fmt.Sprintf("deployment %s has ended: %s", d.ID, d.Outcome),
			}
		}
		w.stopWork()
		w.orders.set(nil)
		var earlier *inventory.Deployment
		if !s.d.Touched() && s.d.Previous != "" {
			was, err := e.stored(s.d.Previous)
			if err != nil && !errors.Is(err, boltdb.ErrNotFound) {
				return d, fmt.Errorf("cancel %s: %w", d.ID, err)
			}
			if err == nil {
				earlier = &was
			}
		}
		cut := w.interruption(s)
		var ended inventory.Deployment
		err := w.saveAfter(func(m *inventory.Machine, d *inventory.Deployment) (events []inventory.Event) {
			m.State = d.From
			if d.Touched() {
				m.State = inventory.Failed // its disk is not as it was
			}
			again := "`pxectl deploy " + m.Name + " --image " + d.ImageName + "` deploys it"
			if d.Erase != nil {
				again = "`pxectl release " + m.Name + "` releases it"
			}
			if m.State == inventory.Failed {
				m.Failure = &inventory.Failure{
					Step: string(d.Step), Reason: "cancelled by " + actor, Hint: again, At: w.now(),
				}
			}
			d.GiveUp(w.now(), "cancelled by "+actor)
			d.Outcome, d.EndedAt = inventory.Cancelled, w.now()
			ended = *d
			ended.Secret = nil
			if earlier == nil {
				d.Secret = nil
			}
			said := fmt.Sprintf("deployment %s cancelled at %s", d.ID, d.Step)
			if cut != nil {
				m.Interrupted = cut
				said += "; the machine was " + cut.String() + " for it"
			}
			if !d.Touched() {
				m.LastProof = "" // that proof was this run's
				if earlier != nil {
					m.LastProof = lastProof(*earlier)
				}
			}
			events = append(events, inventory.Event{Kind: inventory.KindDeploy, Actor: actor, Text: said})
			if earlier != nil {
				// The machine still runs the system of the earlier deployment, unchanged.
				if d.RetryOf == earlier.ID {
					earlier.Secret = d.Secret // it can be retried again
				}
				m.Deployment, *d = earlier.ID, *earlier
				if m.Failure = nil; m.State == inventory.Failed {
					m.Failure = earlier.Failure
				}
				m.Unverified = m.State == inventory.Deployed && earlier.PhonedHomeAt.IsZero()
			}
			return events
		}, func(tx *boltdb.Tx) error { return tx.PutDeployment(ended) })
		if err != nil {
			return d, err
		}
		return ended, nil
	})
}

// interruption says what a run that ends before it touched the disk did to the machine's power; nil for
// nothing.
func (w *worker) interruption(s *snapshot) *inventory.Interruption {
	if s.m.BMC.Address == "" || s.d.Touched() {
		return nil
	}
	cut := &inventory.Interruption{Run: s.d.ID, At: w.now()}
	if r := s.record(); r != nil && r.Step == inventory.BootAgent && r.ActedAt.IsZero() &&
		w.cut.since(&w.began) {
		cut.On = w.poweredOn.since(&w.cut)
		return cut
	}
	for _, r := range s.d.History {
		cut.On = cut.On || r.Step == inventory.BootAgent && !r.ActedAt.IsZero()
	}
	if !cut.On {
		return nil
	}
	return cut
}

// lastProof returns the last proof that a machine had given when the run ended.
func lastProof(d inventory.Deployment) string {
	for _, r := range slices.Backward(d.History) {
		if r.Proof != "" {
			return string(r.Step) + ": " + r.Proof
		}
	}
	return ""
}
