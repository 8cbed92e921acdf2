package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// secretKept is how long a failed deployment keeps its sealed secret, so that it can be retried. A retry,
// another deployment, a release and the deletion of the machine end that at once.
const secretKept = 7 * 24 * time.Hour

// RetryUntil returns until when a failed deployment can be retried; zero when it cannot. It is zero for a
// release, too, whose retry needs no secret and has no such limit.
func RetryUntil(d inventory.Deployment) time.Time {
	if d.Outcome != inventory.FailedOut || len(d.Secret) == 0 {
		return time.Time{}
	}
	return d.EndedAt.Add(secretKept)
}

// launch starts a deployment or a release that the caller has filled in. It runs in the worker's loop.
func (w *worker) launch(run inventory.Deployment, said string) (inventory.Deployment, error) {
	s := w.snap.Load()
	w.orders.set(nil)
	run.Machine, run.CreatedAt, run.Outcome, run.Step = w.id, w.now(), inventory.Running, inventory.Validate
	run.From, run.Previous = s.m.State, s.before()
	if s.intact() {
		run.From = inventory.Deployed
	}
	state, ended := inventory.Deploying, inventory.Deployment{}
	if run.Erase != nil {
		state = inventory.Cleaning
	}
	if s.d != nil && len(s.d.Secret) > 0 {
		ended = *s.d
		ended.Secret = nil
	}
	err := w.saveAfter(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		*d = run
		m.State, m.Deployment, m.Failure, m.Unverified = state, run.ID, nil, false
		return []inventory.Event{{Kind: inventory.KindDeploy, Actor: run.Actor, Text: said}}
	}, func(tx *boltdb.Tx) error {
		if ended.ID == "" {
			return nil
		}
		return tx.PutDeployment(ended)
	})
	if err != nil {
		return inventory.Deployment{}, err
	}
	return *w.snap.Load().d, nil
}

// Retry starts a failed deployment again with all that was asked for: image, host name, disk, user-data, keys
// and network. A failed release is started again, too. ref is the deployment's id, or its machine.
func (e *Engine) Retry(ctx context.Context, actor, ref string) (inventory.Deployment, error) {
	failed, err := e.Deployment(ref)
	if err != nil {
		return failed, err
	}
	if failed.Erase != nil && failed.Outcome == inventory.FailedOut {
		return e.erase(ctx, actor, string(failed.Machine), *failed.Erase, "release", Wish{Release: true})
	}
	w, err := e.find(string(failed.Machine))
	if err != nil {
		return inventory.Deployment{}, err
	}
	return whenIdle(ctx, w, func() (inventory.Deployment, error) {
		var none inventory.Deployment
		if err := w.forgetSecret(); err != nil {
			return none, err
		}
		s := w.snap.Load()
		if s.d != nil && s.d.ID == failed.ID {
			failed = *s.d // as it is now
		}
		if err := (Wish{Retry: &failed}).refused(s); err != nil {
			return none, err
		}
		img, err := e.cfg.Image(failed.ImageID)
		if err != nil {
			return none, err
		}
		if _, err := writable(s.m, failed.DiskHint, failed.Overwrite, img); err != nil {
			return none, err
		}
		d := inventory.Deployment{
			ID: inventory.DeploymentID(newID("d-")), Actor: actor, RetryOf: failed.ID, ImageID: img.ID,
			ImageName: img.Name, Hostname: failed.Hostname,
			Secret: failed.Secret, DiskHint: failed.DiskHint, Overwrite: failed.Overwrite, Mode: failed.Mode,
			Verify: failed.Verify,
		}
		return w.launch(d,
			fmt.Sprintf("deployment %s of image %s as %s, a retry of %s", d.ID, img.Name, d.Hostname,
				failed.ID))
	})
}

// retryable says why a deployment cannot be retried now, and what to do about it.
func retryable(s *snapshot, d inventory.Deployment) error {
	anew := "`pxectl deploy " + s.m.Name + " --image " + d.ImageName + "`, with its user-data and keys"
	which := fmt.Sprintf("has deployment %s, which ", d.ID)
	switch {
	case d.Outcome == inventory.Running:
		return s.free()
	case d.Outcome == inventory.Succeeded && d.Erase != nil:
		return s.cannot("has release "+string(d.ID)+", which succeeded",
			"`pxectl machine clean "+s.m.Name+"` erases again")
	case d.Outcome == inventory.Succeeded:
		return s.cannot(which+"succeeded", anew+" and --redeploy, writes it again")
	case d.Outcome == inventory.Cancelled && d.Erase != nil:
		return s.cannot("has release "+string(d.ID)+", which was cancelled",
			"`pxectl release "+s.m.Name+"`, or `pxectl machine clean "+s.m.Name+"`")
	case d.Outcome == inventory.Cancelled:
		return s.cannot(which+"was cancelled: what it was given is not kept", anew)
	case s.d == nil || s.d.ID != d.ID:
		return s.cannot(fmt.Sprintf("has been deployed or released since (%s)", s.m.Deployment), anew)
	case len(d.Secret) == 0:
		return s.cannot(which+
			fmt.Sprintf("failed, and what it was given is not kept any more (%d days)",
				int(secretKept.Hours())/24), anew)
	}
	// The first request has already allowed to overwrite the system that is there.
	return deployable(s, inventory.DeployRequest{Redeploy: d.From == inventory.Deployed})
}

// forgetSecret drops the secret that a failed deployment keeps for its retry, when secretKept is over.
func (w *worker) forgetSecret() error {
	s := w.snap.Load()
	if s.running() || s.d == nil || len(s.d.Secret) == 0 ||
		w.left("the secret of "+string(s.d.ID), s.d.EndedAt, RetryUntil(*s.d)) > 0 {
		return nil
	}
	return w.save(func(_ *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		d.Secret = nil
		return nil
	})
}
