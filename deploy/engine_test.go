package deploy

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestTheLifeOfAMachine(t *testing.T) {
	testnet.Long(t)
	t.Parallel()
	for name, c := range map[string]struct {
		quirks powertest.Quirks
		noBMC  bool
	}{
		"with an obedient BMC":       {},
		"with a slow status":         {quirks: powertest.SlowStatus},
		"with a deaf BMC":            {quirks: powertest.SharedNIC},
		"with a strict BMC":          {quirks: powertest.Strict},
		"with a forgetful BMC":       {quirks: powertest.Forgetful},
		"with a BMC that reads none": {quirks: powertest.Mute},
		"with a secretive BMC":       {quirks: powertest.Secretive},
		"without a BMC":              {noBMC: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.bmc.Quirks, r.noBMC = c.quirks, c.noBMC
			r.available()
			d := r.deploy(inventory.DeployRequest{Hostname: "web-1"})
			m := r.until(inventory.Deployed)
			d, err := r.now().Deployment(string(d.ID))
			if err != nil {
				t.Fatal(err)
			}
			if d.Outcome != inventory.Succeeded || m.Unverified || d.Written == nil || d.Finished == nil ||
				d.Disk == nil || d.Disk.Serial != "D1" {
				t.Errorf("deployment = %+v, machine unverified = %v", d, m.Unverified)
			}
			if len(d.Secret) != 0 {
				t.Error("the secret outlives its deployment")
			}
			for _, rec := range d.History {
				if rec.Proof == "" {
					t.Errorf("step %s ended without a proof: %+v", rec.Step, rec)
				}
			}
			if a := r.now().IssueBoot(testMAC); !a.Local {
				t.Errorf("a deployed machine that network-boots gets %+v, want its own disk", a)
			}
			if !c.noBMC && (r.bmc.Override().Device != power.DeviceDisk && !c.quirks.DropsBoot ||
				!r.bmc.On()) {
				t.Errorf("the machine is left with boot device %s, on = %v", r.bmc.Override(), r.bmc.On())
			}
		})
	}
}

// A crash at any order, before or after the agent acts on it, loses nothing.
func TestADeploymentSurvivesCrashes(t *testing.T) {
	testnet.Long(t)
	t.Parallel()
	for _, do := range []string{
		inventory.DoInspect, inventory.DoPrepareDisk, inventory.DoWriteImage,
		inventory.DoFinishDisk, inventory.DoPowerOff,
	} {
		t.Run("at "+do, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			var once sync.Once
			var armed atomic.Bool
			armed.Store(do == inventory.DoInspect)
			r.onOrder = func(o inventory.Order) {
				if armed.Load() && o.Do == do {
					once.Do(func() { r.crash() })
				}
			}
			r.available()
			armed.Store(true)
			r.deploy(inventory.DeployRequest{})
			m := r.until(inventory.Deployed)
			if m.Unverified {
				t.Error("deployed, but unverified")
			}
		})
	}
}

func TestACrashWhileTheAgentBoots(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	// A cold machine: the agent is gone, so the deployment has to boot it.
	if _, err := r.now().Power(context.Background(), "test", "m1", power.ActOff); err != nil {
		t.Fatal(err)
	}
	r.mute.Store(true)
	r.deploy(inventory.DeployRequest{})
	r.acted(inventory.BootAgent)
	r.mute.Store(false)
	r.crash()
	// The new engine remembers that the machine was started, and waits; the machine boots late.
	starts := strings.Count(strings.Join(r.bmc.Calls(), ","), "on")
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Deployed)
	d, _ := r.now().Deployment("m1")
	if n := countSteps(d, inventory.BootAgent); n != 1 {
		t.Errorf("the agent was booted %d times, want 1 (%d power-ons before the crash)", n, starts)
	}
}

// acted waits until our own part of a step is done.
func (r *rack) acted(step inventory.Step) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		d, err := r.now().Deployment("m1")
		if err == nil && d.Step == step && len(d.History) > 0 &&
			!d.History[len(d.History)-1].ActedAt.IsZero() {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("step %s was never acted on: %+v, %v", step, d, err)
		}
	}
}

func countSteps(d inventory.Deployment, step inventory.Step) (n int) {
	for _, rec := range d.History {
		if rec.Step == step {
			n++
		}
	}
	return n
}

func TestDeploymentsThatFailSayWhy(t *testing.T) {
	testnet.Long(t)
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(*rack)
		late    func(*rack) // once the machine is available
		step    string
		reason  string
		hint    string
	}{
		"a BMC that refuses the password": {
			late: func(r *rack) { r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = true }) },
			step: "validate", reason: "user or password rejected", hint: "--bmc-password-file",
		},
		"a BMC that is silent": {
			late: func(r *rack) { r.bmc.Misbehave(func(q *powertest.Quirks) { q.Silent = true }) },
			step: "validate", reason: "no answer", hint: "cable",
		},
		"a wrong checksum": {
			prepare: func(r *rack) {
				r.answer = func(o inventory.Order) inventory.Result {
					if o.Do == inventory.DoWriteImage {
						return inventory.Result{
							Error: "chunk 17: sha256 does not match",
							Hint:  "run `pxectl image verify debian-12`",
						}
					}
					return inventory.Result{}
				}
			},
			step: "write-image", reason: "chunk 17: sha256 does not match", hint: "image verify",
		},
		"an agent that never calls": {
			prepare: func(r *rack) { r.dead.BootAgent = 2 * time.Second },
			late: func(r *rack) {
				if _, err := r.now().Power(context.Background(), "test", "m1", power.ActOff); err != nil {
					r.t.Fatal(err)
				}
				r.mute.Store(true)
			},
			step: "boot-agent", reason: "the agent never called", hint: "pxectl why m1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			if c.prepare != nil {
				c.prepare(r)
			}
			r.available()
			if c.late != nil {
				c.late(r)
			}
			r.deploy(inventory.DeployRequest{})
			m := r.until(inventory.Failed)
			f := m.Failure
			if f == nil || f.Step != c.step || !strings.Contains(f.Reason, c.reason) ||
				!strings.Contains(f.Hint, c.hint) {
				t.Errorf("failure = %+v, want step %s, reason %q, hint %q", f, c.step, c.reason, c.hint)
			}
			d, err := r.now().Deployment("m1")
			if err != nil || d.Outcome != inventory.FailedOut || d.Failure == nil {
				t.Errorf("deployment = %+v, %v, want failed", d, err)
			}
			why, err := r.now().Why("m1")
			if err != nil || !strings.Contains(why.Sentence, c.reason) {
				t.Errorf("why = %+v, %v, want the reason", why, err)
			}
		})
	}
}

func TestASystemThatNeverPhonesHomeIsUnverified(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.noHome.Store(true)
	r.dead.VerifyOS = 100 * time.Millisecond
	r.available()
	r.deploy(inventory.DeployRequest{})
	if m := r.until(inventory.Deployed); !m.Unverified {
		t.Error("deployed without a proof, and not unverified")
	}
}

func TestTwoDeploysAtOnceAreOne(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	var wins int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := r.now().Deploy(context.Background(), "test", "m1",
				inventory.DeployRequest{Image: "debian-12"}); err == nil {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if wins != 1 {
		t.Errorf("%d of 8 deploys at once were taken, want 1", wins)
	}
	r.until(inventory.Deployed)
	_, err := r.now().Deploy(context.Background(), "test", "m1", inventory.DeployRequest{Image: "debian-12"})
	if p := inventory.AsProblem(err); err == nil || !strings.Contains(p.Hint, "--redeploy") {
		t.Errorf("deploy of a deployed machine: %v, want the way to say so", err)
	}
	r.deploy(inventory.DeployRequest{Redeploy: true})
	r.until(inventory.Deployed)
}

// A store that cannot be read is an error, and not an empty list.
func TestAStoreThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	r.stop()
	if list, _, err := e.Deployments(DeploymentQuery{Limit: 10}); err == nil ||
		!strings.Contains(err.Error(), "list deployments") {
		t.Errorf("Deployments() of a closed store = %v, %v, want an error", list, err)
	}
}
