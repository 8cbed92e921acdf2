package deploy

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// failing returns a rack whose machine has failed to write an image, and writes once mended is true. seeds
// gets the seeds that its agent gets.
func failing(
	t *testing.T,
) (r *rack, failed inventory.Deployment, mended *atomic.Bool, seeds chan inventory.Seed) {
	t.Helper()
	r, mended, seeds = newRack(t), &atomic.Bool{}, make(chan inventory.Seed, 10)
	r.answer = func(o inventory.Order) inventory.Result {
		if o.Do == inventory.DoWriteImage && !mended.Load() {
			return inventory.Result{Error: "the cable fell out"}
		}
		return inventory.Result{}
	}
	r.onOrder = func(o inventory.Order) {
		if o.Seed != nil {
			seeds <- *o.Seed
		}
	}
	r.available()
	hint, err := inventory.ParseDiskHint("serial=D1")
	if err != nil {
		t.Fatal(err)
	}
	d := r.deploy(inventory.DeployRequest{
		Hostname: "web-1",
		UserData: []byte("#cloud-config\npackages: [nginx]\n"),
		SSHKeys:  []string{"ssh-ed25519 " + testSSHKey + " me@here"},
		Network:  "version: 2\n", Disk: &hint, Mode: inventory.ModeFull,
	})
	m := r.until(inventory.Failed)
	if !strings.Contains(m.Failure.Hint, "`pxectl deployment retry m1`") {
		t.Errorf("the hint of the failure is %q, want `pxectl deployment retry m1`", m.Failure.Hint)
	}
	return r, d, mended, seeds
}

const testSSHKey = "AAAAC3NzaC1lZDI1NTE5AAAAIPRr5ik9qCDsA6RX9Iv377inIUUuAxKKNuWYhu7ZBaT1"

// secretOf is what the store has of a deployment's secret.
func (r *rack) secretOf(id inventory.DeploymentID) string {
	r.t.Helper()
	d, err := r.now().stored(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(d.Secret)
}

func (r *rack) retried(ref string) inventory.Deployment {
	r.t.Helper()
	d, err := r.now().Retry(r.t.Context(), "test", ref)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *rack) refusesRetry(ref, why, hint string) {
	r.t.Helper()
	_, err := r.now().Retry(r.t.Context(), "test", ref)
	if p := inventory.AsProblem(err); err == nil || p.Code != inventory.CodeConflict ||
		!strings.Contains(p.Detail, why) || !strings.Contains(p.Hint, hint) {
		r.t.Errorf("retry of %s: %v (hint %q), want a conflict: %q, hint %q", ref, err, p.Hint, why, hint)
	}
}

func TestARetryIsGivenAllThatWasAskedFor(t *testing.T) {
	r, failed, mended, seeds := failing(t)
	if s := r.secretOf(failed.ID); !strings.HasPrefix(s, "sealed:") {
		t.Errorf("the failed deployment has kept %q, want a sealed secret", s)
	}
	mended.Store(true)
	r.crash()
	d := r.retried("m1")
	r.until(inventory.Deployed)
	if d.ID == failed.ID || d.RetryOf != failed.ID || d.ImageID != failed.ImageID || d.Hostname != "web-1" ||
		d.Mode != inventory.ModeFull || d.DiskHint == nil || d.DiskHint.String() != failed.DiskHint.String() {
		t.Errorf("the retry is %+v, want all that was asked for with %+v", d, failed)
	}
	seed := <-seeds
	for what, has := range map[string]bool{
		"user-data":   strings.Contains(string(seed.UserData), "nginx"),
		"SSH key":     strings.Contains(seed.MetaData, testSSHKey),
		"network":     strings.Contains(seed.NetworkConfig, "version: 2"),
		"host name":   strings.Contains(seed.MetaData, "web-1"),
		"instance-id": strings.Contains(seed.MetaData, string(d.ID)),
	} {
		if !has {
			t.Errorf("the retry's seed lacks the %s: %+v", what, seed)
		}
	}
	if a, b := r.secretOf(failed.ID), r.secretOf(d.ID); a+b != "" {
		t.Errorf("after the retry, the secrets are %q and %q, want none", a, b)
	}
	r.refusesRetry("m1", "which succeeded", "--redeploy")
	r.refusesRetry(string(failed.ID), "has been deployed or released since ("+string(d.ID),
		"pxectl deploy m1 --image debian-12")
}

func TestASecretIsKeptForARetryAndNoLonger(t *testing.T) {
	for name, end := range map[string]func(r *rack, failed inventory.Deployment, mended *atomic.Bool){
		"another deployment": func(r *rack, failed inventory.Deployment, mended *atomic.Bool) {
			mended.Store(true)
			r.deploy(inventory.DeployRequest{})
			r.until(inventory.Deployed)
			r.refusesRetry(string(failed.ID), "has been deployed or released since", "deploy m1")
		},
		"a release": func(r *rack, failed inventory.Deployment, _ *atomic.Bool) {
			r.release(inventory.EraseRequest{})
			r.until(inventory.Available)
			r.refusesRetry(string(failed.ID), "has been deployed or released since", "deploy m1")
		},
		"time": func(r *rack, failed inventory.Deployment, _ *atomic.Bool) {
			r.ahead.Store(int64(secretKept - time.Hour))
			r.crash()
			if r.secretOf(failed.ID) == "" {
				r.t.Error("the secret is gone before its time is over")
			}
			r.ahead.Store(int64(secretKept + time.Hour))
			r.refusesRetry("m1", "is not kept any more (7 days)", "deploy m1")
			r.crash() // its worker looks at once
			for end := time.Now().Add(time.Minute); r.secretOf(failed.ID) != ""; time.Sleep(2 * time.Millisecond) {
				if time.Now().After(end) {
					r.t.Fatal("the secret was never dropped")
				}
			}
		},
		"cancelling a retry that has touched the disk": func(r *rack, failed inventory.Deployment,
			mended *atomic.Bool,
		) {
			mended.Store(true)
			hold := make(chan struct{})
			r.setOnOrder(func(o inventory.Order) {
				if o.Do == inventory.DoWriteImage {
					<-hold
				}
			})
			defer close(hold)
			d := r.retried("m1")
			for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
				if d, err := r.now().Deployment("m1"); err == nil && d.Step == inventory.WriteImage {
					break
				}
				if time.Now().After(end) {
					r.t.Fatal("the write never began")
				}
			}
			if _, err := r.now().CancelDeployment(r.t.Context(), "test", d.ID); err != nil {
				r.t.Fatal(err)
			}
			if s := r.secretOf(d.ID); s != "" {
				r.t.Errorf("the cancelled retry has kept %q, want nothing", s)
			}
			r.refusesRetry("m1", "was cancelled: what it was given is not kept", "deploy m1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, failed, mended, _ := failing(t)
			end(r, failed, mended)
			if s := r.secretOf(failed.ID); s != "" {
				t.Errorf("the failed deployment still has %q", s)
			}
		})
	}
}

// A retry that is cancelled before it touched anything gives the secret back to the failed deployment.
func TestARetryThatIsCancelledCanBeRetried(t *testing.T) {
	r, failed, mended, _ := failing(t)
	mended.Store(true)
	if _, err := r.now().Power(t.Context(), "test", "m1", power.ActOff); err != nil {
		t.Fatal(err)
	}
	r.mute.Store(true)
	d := r.retried("m1")
	if s := r.secretOf(failed.ID); s != "" {
		t.Errorf("while it is retried, the failed deployment has %q, want nothing", s)
	}
	if _, err := r.now().CancelDeployment(t.Context(), "test", d.ID); err != nil {
		t.Fatal(err)
	}
	if a, b := r.secretOf(failed.ID), r.secretOf(d.ID); a == "" || b != "" {
		t.Errorf("after the cancel the failed one has %q and the cancelled one %q, want it with the failed one",
			a, b)
	}
	r.mute.Store(false)
	r.retried(string(failed.ID))
	r.until(inventory.Deployed)
}

func TestAFailedReleaseIsRetriedToo(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.setAnswer(func(o inventory.Order) inventory.Result {
		if o.Do == inventory.DoErase {
			return inventory.Result{Error: "the drive is frozen"}
		}
		return inventory.Result{}
	})
	failed := r.release(inventory.EraseRequest{Quick: true})
	r.until(inventory.Failed)
	r.setAnswer(nil)
	d := r.retried("m1")
	if d.Erase == nil || !d.Erase.Quick || d.ID == failed.ID {
		t.Errorf("the retry is %+v, want another quick release", d)
	}
	r.until(inventory.Available)
	all, _, err := r.now().Deployments(DeploymentQuery{Limit: 10, Machine: "m1"})
	if err != nil || !slices.ContainsFunc(all,
		func(x inventory.Deployment) bool { return x.ID == d.ID && x.Outcome == inventory.Succeeded }) {
		t.Errorf("after the retry: %+v, %v", all, err)
	}
}
