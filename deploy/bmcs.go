package deploy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// withBMC runs f with a machine's BMC, within ctx, and records on the machine whether the BMC answered.
func (e *Engine) withBMC(
	ctx context.Context, ref string, f func(w *worker, m inventory.Machine, b power.BMC) error,
) error {
	w, err := e.find(ref)
	if err != nil {
		return err
	}
	m := w.snap.Load().m
	b, err := w.bmc(m)
	if err != nil {
		return err
	}
	err = e.bmcProblem(m, f(w, m, b))
	said := ""
	if p, ok := errors.AsType[*inventory.Problem](err); ok && p.Code == inventory.CodeBMC {
		said = p.Detail
	} else if err != nil {
		return err // it does not come from the BMC
	}
	rejected := said != "" && errors.Is(err, power.ErrRefused)
	if said != m.BMC.Error && ctx.Err() == nil {
		_, serr := call(ctx, w, func() (struct{}, error) {
			if reached(w.snap.Load().m.BMC) != reached(m.BMC) {
				return struct{}{}, nil // the machine has another BMC by now
			}
			return struct{}{}, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
				m.BMC.Error, m.BMC.Refused = said, rejected
				if said == "" {
					return []inventory.Event{{Kind: inventory.KindBMC, Text: "the BMC answers again"}}
				}
				return nil // recorded has noted the error already
			})
		})
		err = errors.Join(err, serr)
	}
	return err
}

// PowerStatus reads the power from the BMC now, and records it.
func (e *Engine) PowerStatus(ctx context.Context, ref string) (inventory.Power, error) {
	var p inventory.Power
	err := e.withBMC(ctx, ref, func(w *worker, _ inventory.Machine, b power.BMC) error {
		on, err := b.Power(ctx)
		if err != nil {
			return err
		}
		if err := w.observed(ctx, on); err != nil {
			return err
		}
		p = w.snap.Load().m.Power
		return nil
	})
	return p, err
}

// BootDevice reads the boot device override.
func (e *Engine) BootDevice(ctx context.Context, ref string) (power.Boot, error) {
	var boot power.Boot
	err := e.withBMC(ctx, ref, func(_ *worker, _ inventory.Machine, b power.BMC) (err error) {
		boot, err = b.Boot(ctx)
		return err
	})
	return boot, err
}

// Console connects in and out to the machine's serial console until ctx or in ends. Meanwhile the appliance's
// own session is closed, and its Watcher reads along.
func (e *Engine) Console(ctx context.Context, actor, ref string, in io.Reader, out io.Writer) error {
	return e.withBMC(ctx, ref, func(w *worker, m inventory.Machine, b power.BMC) error {
		c, ok := b.(power.Console)
		if !ok {
			return &inventory.Problem{
				Code: inventory.CodeBMC, Detail: m.Name + ": its BMC has no serial console",
			}
		}
		e.NoteOwn(inventory.Event{
			Machine: w.id, Kind: inventory.KindBMC, Actor: actor, Text: "console opened",
		})
		giveBack := w.console.Lend(ctx)
		defer giveBack()
		// End the session when the BMC is replaced: it would go on with a BMC that is not this machine's.
		while, cancel := w.while(ctx, m, &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: m.Name + ": the address or the credentials of its BMC were changed",
			Hint:   "`pxectl console " + m.Name + "` opens its console with the new ones",
		})
		defer cancel()
		err := c.Console(while, in, w.console.Tee(out))
		if while.Err() != nil && ctx.Err() == nil {
			return context.Cause(while)
		}
		return err
	})
}

// readPower reads the power, in up to six attempts: a BMC that shares the machine's NIC does not answer for
// seconds around a power change. Without a BMC it returns false.
func (w *worker) readPower(ctx context.Context, m inventory.Machine) (bool, error) {
	if m.BMC.Address == "" {
		return false, nil
	}
	b, err := w.bmc(m)
	if err != nil {
		return false, err
	}
	var on bool
	for try := range 6 {
		if try > 0 {
			_ = sleep.For(ctx, cmp.Or(w.e.cfg.Pace.Poll, 2*time.Second))
		}
		on, err = b.Power(ctx)
		if err == nil || !errors.Is(err, power.ErrSilent) && !errors.Is(err, power.ErrBusy) {
			break
		}
	}
	return on, w.e.bmcProblem(m, err)
}

// bmcProblem adds the machine's name and a hint to a BMC's error.
func (e *Engine) bmcProblem(m inventory.Machine, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*inventory.Problem](err); ok {
		return p
	}
	p := &inventory.Problem{Code: inventory.CodeBMC, Detail: m.Name + ": " + err.Error(), Err: err}
	if pe, ok := errors.AsType[*power.Error](err); ok {
		p.Hint = pe.Hint
	}
	if errors.Is(err, power.ErrRefused) {
		p.Hint = diagnose.Credentials(m)
	}
	return p
}

// killNonces invalidates every nonce that was issued until now for the machine, and the boot of its agent. It
// is called once what ran on the machine has ended: after a power-off, a reset, or the order to reboot.
func (w *worker) killNonces(ctx context.Context) error {
	_, err := call(ctx, w, func() (struct{}, error) {
		return struct{}{}, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.NoncesAfter, m.Boot = w.e.nonces.Issued(), nil
			if m.BMC.Address != "" { // without a BMC nobody has seen that it is off
				m.Power = inventory.Power{On: false, Known: true, ObservedAt: w.now(), Wanted: m.Power.Wanted}
			}
			return nil
		})
	})
	return err
}

// observed records a power reading.
func (w *worker) observed(ctx context.Context, on bool) error { return w.reading(ctx, on, "") }

// switchedOn records that a run has switched the machine on, which replaces what an operator wanted before.
func (w *worker) switchedOn(ctx context.Context) error { return w.reading(ctx, true, "on") }

func (w *worker) reading(ctx context.Context, on bool, wanted string) error {
	_, err := call(ctx, w, func() (struct{}, error) {
		return struct{}{}, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.Power = inventory.Power{
				On: on, Known: true, ObservedAt: w.now(), Wanted: cmp.Or(wanted, m.Power.Wanted),
			}
			m.BMC.Error, m.BMC.Refused = "", false
			return nil
		})
	})
	return err
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// reached is a key for where commands go and who logs in: address, user, password and K_g.
func reached(b inventory.BMC) string {
	return b.Address + "\x00" + b.User + "\x00" + string(b.Password) + "\x00" + string(b.Kg)
}

// syncPower reads the power of a machine that has no run: every powerSync, and at once when its BMC is new.
// The reading, or the BMC's error, is recorded on the machine.
func (w *worker) syncPower() {
	m := w.snap.Load().m
	how := reached(m.BMC)
	// Not of a stranger: nobody has approved the machine that reports the address, and our password would go
	// there.
	if m.BMC.Address == "" || m.State == inventory.Discovered || m.Maintenance != nil ||
		w.synced == how && w.e.cfg.Elapsed() < w.syncAt {
		return
	}
	w.synced, w.syncAt = how, w.e.cfg.Elapsed()+powerSync
	w.e.wg.Go(func() {
		defer bug.Recover(w.log(), "read the power")
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		if _, err := w.e.PowerStatus(ctx, string(w.id)); errors.Is(err, power.ErrRefused) {
			// BMCs lock a user out after some bad passwords: wait a day, or until somebody has changed
			// something.
			_, _ = call(w.ctx, w, func() (struct{}, error) {
				w.syncAt = w.e.cfg.Elapsed() + 24*time.Hour
				return struct{}{}, nil
			})
		}
	})
}
