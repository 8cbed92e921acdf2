package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// commandTime is how long a BMC has to carry out a command. An off that it loses is sent again every 20 s,
// and it may be silent for a minute.
const commandTime = 5 * time.Minute

// givenUp is the cause of a command that ended because its time was over.
type givenUp struct{ after time.Duration }

func (g givenUp) Error() string { return "given up after " + g.after.String() }

// Is makes errors.Is match context.DeadlineExceeded.
func (g givenUp) Is(target error) bool { return target == context.DeadlineExceeded }

// inTime runs f, a command to the machine's BMC, for at most Deadlines.Command. After that its error is a
// Problem with CodeTimeout.
func (e *Engine) inTime(ctx context.Context, m inventory.Machine, f func(context.Context) error) error {
	over := givenUp{e.cfg.Deadlines.Command}
	ctx, cancel := context.WithTimeoutCause(ctx, over.after, over)
	defer cancel()
	err := f(ctx)
	if err == nil || context.Cause(ctx) != over {
		return err
	}
	p := &inventory.Problem{
		Code: inventory.CodeTimeout, Detail: m.Name + ": " + err.Error(), Err: err,
		Hint: "look at `pxectl why " + m.Name +
			"` for what the BMC was told and said, and at the machine itself; " +
			"a BMC that takes commands and does nothing is restarted with `ipmitool mc reset cold`",
	}
	if !errors.Is(err, over) { // the driver's error does not say it
		p.Detail += ": " + over.Error()
	}
	return p
}

// A command is what an operator has a machine's BMC do. Nothing else begins on the machine until it has
// ended: the command could switch off the agent of a run.
type command struct {
	actor, what string        // "power off"
	ended       chan struct{} // closed when the command has ended
}

// underWay says whether the command has not ended yet; false for nil.
func (c *command) underWay() bool { return c != nil && !closed(c.ended) }

func (c *command) String() string {
	if c.actor == "" {
		return c.what
	}
	return c.what + ", by " + c.actor
}

// command runs f with a machine's BMC, unless a deployment, a release or another command uses it. f's context
// ends when its time is over, when the machine is deleted, and when the machine gets another BMC. needs says
// what f uses, for the error: "its power".
func (w *worker) command(
	ctx context.Context, actor, what, needs string, f func(context.Context, power.BMC) error,
) error {
	c := &command{actor: actor, what: what, ended: make(chan struct{})}
	defer close(c.ended)
	var s snapshot
	b, err := whenIdle(ctx, w, func() (power.BMC, error) {
		s = *w.snap.Load()
		if err := s.leaves(needs); err != nil {
			return nil, err
		}
		b, err := w.bmc(s.m)
		if err != nil {
			return nil, err
		}
		s.command = c
		w.snap.Store(&s)
		return b, nil
	})
	if err != nil {
		return err
	}
	ctx, stop := w.while(ctx, s.m, &inventory.Problem{
		Code:   inventory.CodeConflict,
		Detail: s.m.Name + " was given another BMC, or another user or password for it",
		Hint:   "say it again",
	})
	defer stop()
	err = w.e.inTime(ctx, s.m, func(ctx context.Context) error { return f(ctx, b) })
	if p, ok := errors.AsType[*inventory.Problem](context.Cause(ctx)); ok && err != nil {
		return p
	}
	return err
}

// Power changes a machine's power and waits for the proof where there is one: two equal readings for on, off
// and cycle.
func (e *Engine) Power(ctx context.Context, actor, ref string, a power.Action) (inventory.Power, error) {
	var p inventory.Power
	err := e.withBMC(ctx, ref, func(w *worker, _ inventory.Machine, _ power.BMC) error {
		what := "power " + string(a)
		return w.command(ctx, actor, what, "its power", func(ctx context.Context, b power.BMC) error {
			switch a {
			case power.ActOn, power.ActCycle, power.ActReset:
				w.switched.start(w.e.cfg.Elapsed())
				w.nudge()
			}
			if err := w.change(ctx, b, a); err != nil {
				return err
			}
			_, err := call(ctx, w, func() (struct{}, error) {
				return struct{}{},
					w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
						m.Interrupted = nil
						m.Power.Wanted = map[power.Action]string{power.ActOff: "off", power.ActSoft: "off"}[a]
						if m.Power.Wanted == "" {
							m.Power.Wanted = "on"
						}
						return []inventory.Event{
							{Kind: inventory.KindPower, Actor: actor, Text: what},
						}
					})
			})
			p = w.snap.Load().m.Power
			return err
		})
	})
	return p, err
}

func (w *worker) change(ctx context.Context, b power.BMC, a power.Action) error {
	switch a {
	case power.ActOn:
		if err := power.On(ctx, b, w.e.cfg.Pace); err != nil {
			return err
		}
		return w.observed(ctx, true)
	case power.ActOff, power.ActCycle:
		// Many BMCs refuse to cycle a machine that is off, so a cycle is an off and an on here.
		if err := power.Off(ctx, b, w.e.cfg.Pace); err != nil {
			return err
		}
		if err := w.killNonces(ctx); err != nil || a == power.ActOff {
			return err
		}
		return w.change(ctx, b, power.ActOn)
	case power.ActReset:
		if err := b.Do(ctx, a); err != nil {
			return err
		}
		if err := w.killNonces(ctx); err != nil {
			return err
		}
		return w.observed(ctx, true)
	case power.ActSoft:
		return b.Do(ctx, a) // the system may take minutes, or refuse
	}
	return &inventory.Problem{
		Code:   inventory.CodeInvalid,
		Detail: fmt.Sprintf("power action %q", a),
		Hint:   "use on, off, soft, cycle or reset",
	}
}

// SetBootDevice sets the boot device override and reads it back.
func (e *Engine) SetBootDevice(ctx context.Context, actor, ref string, want power.Boot) (power.Boot, error) {
	var stands power.Boot
	err := e.withBMC(ctx, ref, func(w *worker, _ inventory.Machine, _ power.BMC) error {
		what := "boot device " + want.String()
		return w.command(ctx, actor, what, "its boot device",
			func(ctx context.Context, b power.BMC) (err error) {
				if stands, err = power.AssertBoot(ctx, b, want, e.cfg.Pace); err == nil {
					e.NoteOwn(inventory.Event{
						Machine: w.id,
						Kind:    inventory.KindBMC,
						Actor:   actor,
						Text:    "boot device " + stands.String(),
					})
				}
				return err
			})
	})
	return stands, err
}
