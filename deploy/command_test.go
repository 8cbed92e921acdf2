package deploy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// A heldBMC keeps a command in the driver, which does not look at its context, until the test lets it go.
type heldBMC struct {
	power.BMC
	asked chan string
	let   chan struct{}
}

func (h heldBMC) hold(what string) {
	h.asked <- what
	<-h.let
}

func (h heldBMC) Do(ctx context.Context, a power.Action) error {
	h.hold(string(a))
	return h.BMC.Do(context.WithoutCancel(ctx), a)
}

func (h heldBMC) SetBoot(ctx context.Context, b power.Boot) error {
	h.hold(b.String())
	return h.BMC.SetBoot(context.WithoutCancel(ctx), b)
}

// holds makes the rack's BMC a heldBMC for all that open it from now on.
func (r *rack) holds() heldBMC {
	h := heldBMC{r.bmc, make(chan string), make(chan struct{})}
	r.open = func(power.Target) (power.BMC, error) { return h, nil }
	return h
}

// While a BMC carries out a command, nothing else begins on its machine: a late power-off would stop the
// agent of what began. Every end of the command makes the machine free.
func TestNothingBeginsBesideACommand(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(context.Context, *Engine) error
		said string
		ends func(t *testing.T, h heldBMC, r *rack, hangUp func())
		want error // nil: it succeeds
	}{
		"off":  {do: powers(power.ActOff), said: "m1 waits for its BMC (power off, by alice)", ends: obeys},
		"soft": {do: powers(power.ActSoft), said: "(power soft, by alice)", ends: obeys},
		"cycle": {
			do: powers(power.ActCycle), said: "(power cycle, by alice)",
			ends: func(t *testing.T, h heldBMC, r *rack, _ func()) {
				obeys(t, h, r, nil)
				if got := <-h.asked; got != "on" {
					t.Errorf("after off the BMC is told %s, want on", got)
				}
				h.let <- struct{}{}
			},
		},
		"reset": {do: powers(power.ActReset), said: "(power reset, by alice)", ends: obeys},
		"boot device": {
			do:   boots,
			said: "(boot device disk once, by alice)", ends: obeys,
		},
		"its client hangs up": {
			do: powers(power.ActOff), said: "(power off, by alice)", want: context.Canceled,
			ends: func(_ *testing.T, h heldBMC, _ *rack, hangUp func()) {
				hangUp()
				h.let <- struct{}{}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			h := r.holds()
			r.available()
			e := r.now()
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			ended := make(chan error, 1)
			go func() { ended <- c.do(ctx, e) }()
			<-h.asked
			for _, try := range []struct {
				what string
				do   func(context.Context, *Engine) error
			}{
				{"deploy", deploys},
				{"clean", func(ctx context.Context, e *Engine) error {
					_, err := e.Clean(ctx, "bob", "m1", inventory.EraseRequest{})
					return err
				}},
				{"release", func(ctx context.Context, e *Engine) error {
					_, err := e.Release(ctx, "bob", "m1", inventory.EraseRequest{})
					return err
				}},
				{"power", powers(power.ActOn)},
				{"boot device", boots},
			} {
				err := try.do(t.Context(), e)
				if err == nil {
					t.Fatalf("%s beside a command was let in", try.what)
				}
				if p := inventory.AsProblem(err); p.Code != inventory.CodeConflict ||
					!strings.Contains(p.Detail, c.said) || p.Hint == "" {
					t.Errorf("%s: %v (%s), want a conflict with %q, and the next move", try.what, err, p.Hint,
						c.said)
				}
			}
			if p, err := e.Plan("m1", inventory.DeployRequest{Image: "debian-12"}); err != nil ||
				p.Refused == nil || !strings.Contains(p.Refused.Detail, c.said) {
				t.Errorf("plan: %+v, %v, want it refused with %q", p.Refused, err, c.said)
			}
			c.ends(t, h, r, hangUp)
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("the command ended with %v, want %v", err, c.want)
			}
			if err := deploys(t.Context(), e); err != nil {
				t.Errorf("deploy after the command: %v", err)
			}
		})
	}
}

func powers(a power.Action) func(context.Context, *Engine) error {
	return func(ctx context.Context, e *Engine) error {
		_, err := e.Power(ctx, "alice", "m1", a)
		return err
	}
}

func obeys(_ *testing.T, h heldBMC, _ *rack, _ func()) { h.let <- struct{}{} }

func deploys(ctx context.Context, e *Engine) error {
	_, err := e.Deploy(ctx, "bob", "m1", inventory.DeployRequest{Image: "debian-12"})
	return err
}

func boots(ctx context.Context, e *Engine) error {
	_, err := e.SetBootDevice(ctx, "alice", "m1", power.Boot{Device: power.DeviceDisk})
	return err
}

// A command ends when its machine is deleted, and when the machine gets another BMC.
func TestACommandEndsWithItsMachineAndItsBMC(t *testing.T) {
	elsewhere := "192.0.2.77"
	for name, c := range map[string]struct {
		change func(context.Context, *Engine) error
		want   string
	}{
		"the machine is deleted": {
			func(ctx context.Context, e *Engine) error { return e.DeleteMachine(ctx, "bob", "m1") },
			"machine m1 is gone",
		},
		"another BMC": {func(ctx context.Context, e *Engine) error {
			_, err := e.EditMachine(ctx, "bob", "m1", Edit{BMC: BMCEdit{Address: &elsewhere}})
			return err
		}, "m1 was given another BMC"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			r.available()
			r.bmc.Misbehave(func(q *powertest.Quirks) { q.Loses = 1 << 30 })
			e, ended := r.now(), make(chan error, 1)
			go func() { ended <- powers(power.ActOff)(t.Context(), e) }()
			r.soon("off is sent", func() bool { return slices.Contains(r.bmc.Calls(), "off") })
			if err := c.change(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the command ended with %v, want %q", err, c.want)
			}
		})
	}
}

// passes lets all commands through until the test ends.
func (h heldBMC) passes(t *testing.T) {
	close(h.let)
	go func() {
		for {
			select {
			case <-h.asked:
			case <-t.Context().Done():
				return
			}
		}
	}()
}

// A power-off whose client hung up is carried out all the same: the next deployment boots the agent again,
// and gives no orders to the one that was there.
func TestAnOffThatWasCutShortEndsTheAgent(t *testing.T) {
	r := newRack(t)
	h := r.holds()
	r.available()
	ctx, hangUp := context.WithCancel(t.Context())
	e, ended := r.now(), make(chan error, 1)
	go func() { ended <- powers(power.ActOff)(ctx, e) }()
	<-h.asked
	hangUp()
	h.let <- struct{}{}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("power off ended with %v, want that its client hung up", err)
	}
	h.passes(t)
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	if d, err := e.Deployment("m1"); err != nil || countSteps(d, inventory.PrepareDisk) != 1 {
		t.Errorf("prepare-disk began %d times (%v), want once, with an agent that is there",
			countSteps(d, inventory.PrepareDisk), err)
	}
}

// A command of a cancelled deployment to the BMC ends before anything else begins.
func TestACancelledStepIsWaitedFor(t *testing.T) {
	r := newRack(t)
	h := r.holds()
	r.available()
	r.agentless()
	e := r.now()
	d := r.deploy(inventory.DeployRequest{})
	<-h.asked
	if _, err := e.CancelDeployment(t.Context(), "alice", d.ID); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func(context.Context, *Engine) error{
		"deploy": deploys,
		"power":  powers(power.ActOn), "boot device": boots,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := do(ctx, e); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s beside a cancelled deployment's off ended with %v, want that it waits", what, err)
		}
		cancel()
	}
	h.passes(t)
	if err := deploys(t.Context(), e); err != nil {
		t.Errorf("deploy after it: %v", err)
	}
}

// An idleBMC accepts on and off, does nothing, and answers nothing else.
type idleBMC struct{ power.BMC }

func (b idleBMC) Do(ctx context.Context, a power.Action) error {
	if a == power.ActOn || a == power.ActOff {
		return nil
	}
	<-ctx.Done()
	return &power.Error{Target: testBMC, Doing: string(a), Err: ctx.Err()}
}

func (b idleBMC) SetBoot(ctx context.Context, _ power.Boot) error {
	<-ctx.Done()
	return &power.Error{Target: testBMC, Doing: "set boot device", Err: ctx.Err()}
}

// A command that a BMC accepts and does not carry out is given up, however long an operator or a deployment
// waits.
func TestACommandThatIsNotDoneIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		on   bool
		do   func(context.Context, *Engine) error
		want string
	}{
		"off":         {true, powers(power.ActOff), "m1: power off: told "},
		"on":          {false, powers(power.ActOn), "m1: power on: told "},
		"cycle":       {true, powers(power.ActCycle), "m1: power off: told "},
		"soft":        {true, powers(power.ActSoft), "m1: soft "},
		"reset":       {true, powers(power.ActReset), "m1: reset "},
		"boot device": {true, boots, "m1: set boot device "},
		"a deployment": {true, func(ctx context.Context, e *Engine) error {
			if err := deploys(ctx, e); err != nil {
				return err
			}
			return failure(ctx, e)
		}, "power off: told "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A slow disk may use up the time before the BMC gets the command; then the test tries a longer
			// one.
			for deadline := 200 * time.Millisecond; ; deadline *= 4 {
				r := newRack(t)
				r.dead.Command = deadline
				r.open = func(power.Target) (power.BMC, error) { return idleBMC{r.bmc}, nil }
				r.available()
				r.agentless()
				e := r.now()
				r.bmc.Set(c.on)
				err := c.do(t.Context(), e)
				if err == nil {
					t.Fatal("what the BMC never did has succeeded")
				}
				p := inventory.AsProblem(err)
				if p.Code != inventory.CodeTimeout ||
					!strings.Contains(p.Detail, "given up after "+deadline.String()) ||
					!strings.Contains(p.Hint, "pxectl why m1") {
					t.Fatalf("%s: %s (hint: %s), want that it is given up after %v, and the next move",
						p.Code, p.Detail, p.Hint, deadline)
				}
				if strings.HasPrefix(p.Detail, c.want) {
					return
				}
				if deadline > 10*time.Second {
					t.Fatalf("%s: %s, want %q first", p.Code, p.Detail, c.want)
				}
			}
		})
	}
}

// failure waits until the deployment has failed, and returns the reason.
func failure(ctx context.Context, e *Engine) error {
	for {
		m, err := e.Machine("m1")
		switch {
		case err != nil:
			return err
		case m.State == inventory.Failed:
			return &inventory.Problem{
				Code: inventory.CodeTimeout, Detail: m.Failure.Reason, Hint: m.Failure.Hint,
			}
		}
		if err := sleep.For(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}
