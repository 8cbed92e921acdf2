package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// CancelDeployment ends a running deployment. The machine keeps what was done to it so far.
func (e *Engine) CancelDeployment(ctx context.Context, actor string, id inventory.DeploymentID) (inventory.Deployment, error) {
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
			return d, &inventory.Problem{Code: inventory.CodeConflict, Detail: fmt.Sprintf("deployment %s has ended: %s", d.ID, d.Outcome)}
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
		var ended inventory.Deployment
		err := w.saveAfter(func(m *inventory.Machine, d *inventory.Deployment) (events []inventory.Event) {
			m.State = d.From
			if d.Touched() {
				m.State = inventory.Failed // nobody should take it for a machine that is as it was
			}
			again := "`pxectl deploy " + m.Name + " --image " + d.ImageName + "` deploys it"
			if d.Erase != nil {
				again = "`pxectl release " + m.Name + "` releases it"
			}
			if m.State == inventory.Failed {
				m.Failure = &inventory.Failure{Step: string(d.Step), Reason: "cancelled by " + actor, Hint: again, At: w.now()}
			}
			d.GiveUp(w.now(), "cancelled by "+actor)
			d.Outcome, d.EndedAt = inventory.Cancelled, w.now()
			ended = *d
			ended.Secret = nil
			if earlier == nil {
				d.Secret = nil
			}
			events = append(events, inventory.Event{Kind: inventory.KindDeploy, Actor: actor, Text: fmt.Sprintf("deployment %s cancelled at %s", d.ID, d.Step)})
			if earlier != nil {
				// What the machine runs is still the system of the deployment before, as it was.
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
