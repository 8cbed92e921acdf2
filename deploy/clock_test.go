package deploy

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// When a clock that was ahead is corrected, or a clock is set ahead, no nonce outlives a power-off and no
// fresh one is refused, also with a restart in between.
func TestNoncesWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ first, then time.Duration }{
		"ahead and corrected":  {24 * time.Hour, 0},
		"behind and corrected": {-24 * time.Hour, 0},
		"set ahead":            {0, 24 * time.Hour},
		"set back":             {0, -24 * time.Hour},
	} {
		for _, restarts := range []bool{false, true} {
			test := strings.ReplaceAll(name, " ", "-") + map[bool]string{true: "-and-restarted"}[restarts]
			t.Run(test, func(t *testing.T) {
				t.Parallel()
				r := newRack(t)
				r.available()
				sets := func(to time.Duration) {
					r.set.Store(int64(to))
					if restarts {
						r.crash()
					}
				}
				ctx := context.Background()
				register := func(nonce, boot string) error {
					_, err := r.now().Register(ctx, agentAt(nonce, "192.0.2.100"), inventory.Registration{
						MAC: testMAC, BootID: bootIDOf(boot),
					})
					return err
				}
				refusedFor := func(what string, err error, why string) {
					t.Helper()
					if err == nil || inventory.AsProblem(err).Code != inventory.CodeRefused ||
						!strings.Contains(err.Error(), why) {
						t.Errorf("%s: %v, want refused: %s", what, err, why)
					}
				}
				r.mute.Store(true)
				r.set.Store(int64(c.first))
				before := r.now().IssueBoot(testMAC).Nonce
				if _, err := r.now().Power(ctx, "test", "m1", power.ActOff); err != nil {
					t.Fatal(err)
				}
				sets(c.then)
				refusedFor("a nonce from before the power-off", register(before, "a"), "powered off")
				unused := r.now().IssueBoot(testMAC).Nonce
				older := r.now().IssueBoot(testMAC).Nonce
				fresh := r.now().IssueBoot(testMAC).Nonce
				sets(c.first)
				if err := register(fresh, "b"); err != nil {
					t.Errorf("a fresh nonce: %v", err)
				}
				sets(c.then)
				if err := register(fresh, "b"); err != nil {
					t.Errorf("the same agent again: %v", err)
				}
				refusedFor("a nonce that is older than the one that registered", register(older, "c"),
					"older than the boot")
				if _, err := r.now().Power(ctx, "test", "m1", power.ActOff); err != nil {
					t.Fatal(err)
				}
				refusedFor("an unused nonce from before the second power-off", register(unused, "d"),
					"powered off")

				// A nonce is good for an hour, whatever the time of day is set to.
				kept := r.now().IssueBoot(testMAC).Nonce
				r.set.Store(int64(c.first))
				r.ahead.Add(int64(nonceLife - time.Minute))
				late := r.now().IssueBoot(testMAC).Nonce
				r.ahead.Add(int64(2 * time.Minute))
				refusedFor("a nonce of more than an hour", register(kept, "e"), "never used")
				if err := register(late, "f"); err != nil {
					t.Errorf("a nonce of two minutes: %v", err)
				}
			})
		}
	}
}

// A clock that is set while a deployment runs neither ends a step nor makes the agent seem gone: the machine
// is inspected once, booted once and deployed.
func TestADeploymentWhileTheClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 24 * time.Hour, "back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.available()
			if _, err := r.now().Power(context.Background(), "test", "m1", power.ActOff); err != nil {
				t.Fatal(err)
			}
			var inspections atomic.Int32
			r.setOnOrder(func(o inventory.Order) {
				switch o.Do {
				case inventory.DoInspect: // it registered before the clock is set, and reports after
					inspections.Add(1)
					r.set.Store(int64(by))
				case inventory.DoWriteImage:
					r.set.Store(0)
				case inventory.DoFinishDisk:
					r.set.Store(int64(by))
				}
			})
			r.deploy(inventory.DeployRequest{})
			m := r.until(inventory.Deployed)
			d, err := r.now().Deployment("m1")
			if n := countSteps(d, inventory.BootAgent); err != nil || n != 1 || m.Unverified {
				t.Errorf("the agent was booted %d times (%v), the system is unverified: %v; want once and verified",
					n, err, m.Unverified)
			}
			if n := inspections.Load(); n != 1 {
				t.Errorf("the agent was asked for %d reports, want 1", n)
			}
		})
	}
}

// After a clock that was days ahead is corrected, the power is still read.
func TestThePowerIsReadWhileTheClockIsSet(t *testing.T) {
	r := newRack(t)
	r.set.Store(int64(240 * time.Hour))
	r.available()
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	reads := func() (n int) {
		for _, call := range r.bmc.Calls() {
			if call == "power" {
				n++
			}
		}
		return n
	}
	r.soon("the power is read", func() bool { return reads() > 0 })
	r.set.Store(0)
	before := reads()
	r.ahead.Add(int64(powerSync + time.Second))
	r.soon("the power is read again", func() bool { w.nudge(); return reads() > before })
}

// A clock that is days ahead for a while does not make a failed deployment drop its secret.
func TestASecretOutlivesAClockThatIsSet(t *testing.T) {
	r := newRack(t)
	r.available()
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = true })
	failed := r.deploy(inventory.DeployRequest{UserData: []byte("#cloud-config\n")})
	r.until(inventory.Failed)
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Refuses = false })
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		if _, err := call(t.Context(), w,
			func() (struct{}, error) { return struct{}{}, w.forgetSecret() }); err != nil {
			t.Fatal(err)
		}
	}
	look()
	r.set.Store(int64(2 * secretKept))
	look()
	r.set.Store(0)
	if r.secretOf(failed.ID) == "" {
		t.Fatal("the secret is gone")
	}
	r.set.Store(int64(2 * secretKept))
	if _, err := r.now().Retry(t.Context(), "test", "m1"); err != nil {
		t.Errorf("retry while the clock is ahead: %v", err)
	}
}
