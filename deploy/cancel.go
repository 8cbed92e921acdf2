package deploy

import (
	"context"
	"fmt"

	"github.com/pxectl/pxectl/inventory"
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
			if was, err := e.Deployment(string(s.d.Previous)); err == nil {
				earlier = &was
			}
		}
		err := w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			m.State = d.From
			if d.Touched() {
				// Nobody should take it for a machine that is as it was.
				m.State = inventory.Failed
				again := "deploy it again"
				if d.Erase != nil {
					again = "release it again"
				}
				m.Failure = &inventory.Failure{Step: string(d.Step), Reason: "cancelled by " + actor, Hint: again, At: w.now()}
			}
			d.Outcome, d.EndedAt, d.Secret = inventory.Cancelled, w.now(), nil
			return []inventory.Event{{Kind: "deploy", Actor: actor, Text: fmt.Sprintf("deployment %s cancelled at %s", d.ID, d.Step)}}
		})
		if err != nil {
			return d, err
		}
		cancelled := *w.snap.Load().d
		if earlier == nil {
			return cancelled, nil
		}
		// The system of the deployment before is what the machine still runs.
		return cancelled, w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			m.Deployment, *d = earlier.ID, *earlier
			return nil
		})
	})
}
