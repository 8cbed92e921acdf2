package deploy

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestACancelledRedeploymentLeavesTheSystemDeployed(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	first := r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.mute.Store(true)
	d := r.deploy(inventory.DeployRequest{Redeploy: true})
	if _, err := r.now().CancelDeployment(context.Background(), "test", d.ID); err != nil {
		t.Fatal(err)
	}
	m := r.until(inventory.Deployed)
	if m.Deployment != first.ID || !r.now().IssueBoot(testMAC).Local {
		t.Errorf("after the cancel the machine's deployment is %s, want %s, and it boots its disk",
			m.Deployment, first.ID)
	}
	_, err := r.now().Deploy(context.Background(), "test", "m1", inventory.DeployRequest{Image: "debian-12"})
	if p := inventory.AsProblem(err); err == nil || !strings.Contains(p.Hint, "--redeploy") {
		t.Errorf("deploy after the cancel: %v, want the guard still up", err)
	}
	// After a redeployment that fails before it touches the disk, --redeploy is needed as well.
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = true })
	r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Failed)
	_, err = r.now().Deploy(context.Background(), "test", "m1", inventory.DeployRequest{Image: "debian-12"})
	if p := inventory.AsProblem(err); err == nil || !strings.Contains(p.Hint, "--redeploy") ||
		!r.now().IssueBoot(testMAC).Local {
		t.Errorf("deploy after a failure that touched nothing: %v, want the guard still up", err)
	}
}

// A watchedStore calls look after each transaction that the engine has written: a kill may come there.
type watchedStore struct {
	*boltdb.Store
	look func(*boltdb.Tx) error
}

func (s watchedStore) after(err error) error { return errors.Join(err, s.View(s.look)) }

func (s watchedStore) Update(f func(*boltdb.Tx) error) error { return s.after(s.Store.Update(f)) }

func (s watchedStore) Batch(f func(*boltdb.Tx) error) error { return s.after(s.Store.Batch(f)) }

// After each transaction the store has the machine with the deployment whose system it runs.
func TestACancelIsOneTransaction(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	var first atomic.Value // id of the deployment that a cancel goes back to
	var cancels atomic.Int32
	look := func(tx *boltdb.Tx) error {
		want, _ := first.Load().(inventory.DeploymentID)
		all, err := tx.Machines()
		if err != nil || want == "" {
			return err
		}
		stored, err := tx.Deployments(all[0].ID, "", 1)
		if err != nil {
			return err
		}
		if d, m := stored[0], all[0]; d.ID != want && d.Outcome == inventory.Cancelled {
			cancels.Add(1)
			if m.Deployment != want || m.State != inventory.Deployed {
				t.Errorf("%s is cancelled, and the machine is %s by %s, want %s by %s", d.ID, m.State,
					m.Deployment, inventory.Deployed, want)
			}
		}
		return nil
	}
	r.tune = func(e *Engine) { e.store = watchedStore{e.cfg.Store, look} }
	r.available()
	before := r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.mute.Store(true)
	first.Store(before.ID)
	d := r.deploy(inventory.DeployRequest{Redeploy: true})
	if _, err := r.now().CancelDeployment(t.Context(), "test", d.ID); err != nil {
		t.Fatal(err)
	}
	if cancels.Load() == 0 {
		t.Error("no transaction has cancelled it")
	}
	if d, err := r.crash().Deployment("m1"); err != nil || d.ID != before.ID {
		t.Errorf("after a restart the machine's deployment is %s (%v), want %s", d.ID, err, before.ID)
	}
}

// A deployment that is cancelled before it touched anything goes back to what was: also to the reason of a
// failure, the mark of a system that never phoned home, and the deployment before a failed one.
func TestACancelGoesBackToWhatWas(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.noHome.Store(true)
	r.dead.VerifyOS = 50 * time.Millisecond
	r.available()
	first := r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	r.mute.Store(true)
	cancelled := func() inventory.Machine {
		t.Helper()
		d := r.deploy(inventory.DeployRequest{Redeploy: true})
		if _, err := r.now().CancelDeployment(context.Background(), "test", d.ID); err != nil {
			t.Fatal(err)
		}
		m, err := r.now().Machine("m1")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := cancelled(); m.State != inventory.Deployed || !m.Unverified || m.Failure != nil {
		t.Errorf("after the cancel the machine is %s, unverified %v, failure %v; want deployed, true, none",
			m.State, m.Unverified, m.Failure)
	}
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = true })
	r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Failed)
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = false })
	if m := cancelled(); m.State != inventory.Deployed || m.Deployment != first.ID || m.Failure != nil {
		t.Errorf("cancelled after one that touched nothing: %s by %s, failure %v; want deployed by %s",
			m.State, m.Deployment, m.Failure, first.ID)
	}
	r.mute.Store(false)
	r.setAnswer(func(o inventory.Order) inventory.Result {
		if o.Do == inventory.DoWriteImage {
			return inventory.Result{Error: "the disk died"}
		}
		return inventory.Result{}
	})
	failed := r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Failed)
	r.agentless() // else prepare-disk may begin before the cancel
	if m := cancelled(); m.State != inventory.Failed || m.Deployment != failed.ID || m.Failure == nil ||
		m.Failure.Reason != "the disk died" {
		t.Errorf("cancelled after a failure: %s by %s, %+v; want the failure of %s", m.State, m.Deployment,
			m.Failure, failed.ID)
	}
}

// A redeployment that is cancelled in boot-agent has cut off the system that runs, and the machine says so.
// Its console had no time to show anything, so no event blames it.
func TestACancelSaysThatTheSystemWasCutOff(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *rack, inventory.DeploymentID){
		"until it calls home": func(t *testing.T, r *rack, first inventory.DeploymentID) {
			if err := r.now().PhoneHome(t.Context(), first, r.now().cfg.Key.PhoneHomeToken(first),
				"192.0.2.100", func() string { return "m1" }); err != nil {
				t.Fatal(err)
			}
		},
		"until an operator switches it": func(t *testing.T, r *rack, _ inventory.DeploymentID) {
			if _, err := r.now().Power(t.Context(), "test", "m1", power.ActCycle); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := cold(t)
			r.available()
			first := r.deploy(inventory.DeployRequest{})
			before := r.until(inventory.Deployed)
			r.mute.Store(true)
			d := r.deploy(inventory.DeployRequest{Redeploy: true})
			r.acted(inventory.BootAgent)
			r.soon("the console is listened to", func() bool { return r.line.Holder() == "listener" })
			if _, err := r.now().CancelDeployment(t.Context(), "test", d.ID); err != nil {
				t.Fatal(err)
			}
			m, err := r.now().Machine("m1")
			if err != nil || m.Interrupted == nil || m.Interrupted.Run != d.ID || !m.Interrupted.On ||
				m.LastProof != before.LastProof {
				t.Errorf("after the cancel: interrupted %+v, last proof %q (%v); "+
					"want switched off and on for %s, and %q",
					m.Interrupted, m.LastProof, err, d.ID, before.LastProof)
			}
			why, err := r.now().Why("m1")
			for _, want := range []string{
				"m1 is deployed, and its system was cut off",
				"switched off and on for " + string(d.ID) + ", which went no further",
				"has not called home since (last proof: verify-os: ",
			} {
				if !strings.Contains(why.Sentence, want) {
					t.Errorf("why = %q (%v), want %q in it", why.Sentence, err, want)
				}
			}
			r.soon("the listener has hung up", func() bool { return r.line.Holder() == "" })
			end(t, r, first.ID)
			if why, err := r.now().Why("m1"); err != nil ||
				!strings.Contains(why.Sentence, "m1 is deployed, as it should be (last proof: verify-os: ") {
				t.Errorf("why after all = %q (%v), want that it is as it should be", why.Sentence, err)
			}
			r.now().Note(inventory.Event{MAC: testMAC, Kind: inventory.KindHTTP, Text: "the last of all"})
			r.soon("the timeline is written", func() bool {
				return strings.Contains(texts(t, r.now().cfg.Store), "the last of all")
			})
			if heard := r.heard(); len(heard) > 0 {
				t.Errorf("a boot that was cancelled is told as %q", heard)
			}
			if said := texts(t, r.now().cfg.Store); !strings.Contains(said,
				"cancelled at boot-agent; the machine was switched off and on for it") {
				t.Errorf("the timeline says %s, want what was done to the power", said)
			}
		})
	}
}

// A cancel may come while the BMC has not answered the power-off yet.
func TestACancelWhileTheMachineIsSwitchedOff(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	asked, late := make(chan struct{}, 1), make(chan struct{})
	r.open = func(power.Target) (power.BMC, error) { return lingering{r.bmc, asked, late}, nil }
	r.available()
	r.agentless()
	d := r.deploy(inventory.DeployRequest{})
	<-asked
	if _, err := r.now().CancelDeployment(t.Context(), "test", d.ID); err != nil {
		t.Fatal(err)
	}
	close(late)
	m, err := r.now().Machine("m1")
	if err != nil || m.Interrupted == nil || m.Interrupted.On || m.LastProof != "" {
		t.Errorf("after the cancel: interrupted %+v, last proof %q (%v); "+
			"want switched off alone, and no proof of the cancelled run",
			m.Interrupted, m.LastProof, err)
	}
}
