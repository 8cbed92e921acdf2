package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// An outcome is what our own part of a step came to. It is applied in the worker's loop.
type outcome struct {
	proof  string // ends the step
	acted  string // our part is done, and this is what was done; the proof is still to come
	err    error
	update func(*inventory.Machine, *inventory.Deployment)
}

// act starts our own part of a step beside the loop, so that phone calls and agents are heard meanwhile.
func (w *worker) act(step inventory.Step) {
	s := w.snap.Load()
	r := s.record()
	ctx, cancel := context.WithTimeout(w.ctx, w.left(orderID(s.d, r), r.BeganAt, r.Deadline))
	if step == inventory.VerifyOS {
		ctx, cancel = context.WithTimeout(w.ctx, time.Minute) // its deadline is what brought us here
	}
	w.working = cancel
	began := r.BeganAt
	w.e.wg.Go(func() {
		defer bug.Recover(w.log(), string(step))
		defer cancel()
		out := w.part(ctx, step, s)
		// The loop may have gone on to another step (a phone-home, a cancel): then this outcome is history.
		_, _ = call(w.ctx, w, func() (struct{}, error) {
			now := w.snap.Load()
			if r := now.record(); r == nil || now.d.ID != s.d.ID || r.Step != step || !r.BeganAt.Equal(began) {
				return struct{}{}, nil
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return struct{}{}, nil // stopped, to be done again: its deadline would be another error
			}
			w.working = nil
			w.settle(out)
			return struct{}{}, nil
		})
	})
}

func (w *worker) part(ctx context.Context, step inventory.Step, s *snapshot) (out outcome) {
	defer bug.Return(w.log(), string(step), &out.err)
	switch step {
	case inventory.Validate:
		return w.validate(ctx, s)
	case inventory.BootAgent:
		return w.bootAgent(ctx, s)
	case inventory.BootOS:
		return w.bootOS(ctx, s)
	default:
		return w.verifyOS(ctx, s)
	}
}

// settle writes an outcome.
func (w *worker) settle(out outcome) {
	if out.update == nil {
		out.update = func(*inventory.Machine, *inventory.Deployment) {}
	}
	var err error
	switch {
	case out.err != nil:
		err = w.endStep("", out.err, out.update)
	case out.proof != "":
		err = w.endStep(out.proof, nil, out.update)
	default:
		err = w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			out.update(m, d)
			r := &d.History[len(d.History)-1]
			r.ActedAt = w.now()
			return []inventory.Event{{Kind: "step", Text: fmt.Sprintf("%s: %s", r.Step, out.acted), Data: map[string]string{"step": string(r.Step)}}}
		})
	}
	if err != nil {
		w.log().Error("record what a step came to", "err", err) // it is done again
	}
}

// validate checks all that a deployment needs, and touches nothing.
func (w *worker) validate(ctx context.Context, s *snapshot) outcome {
	if s.d.Erase != nil {
		return w.validateErase(ctx, s)
	}
	img, err := w.e.cfg.Image(s.d.ImageID)
	if err != nil {
		return outcome{err: err}
	}
	disk, err := chooseDisk(s.m, s.d.DiskHint, img)
	if err != nil {
		return outcome{err: err}
	}
	if err := mayOverwrite(s.m, disk, s.d.Overwrite); err != nil {
		return outcome{err: err}
	}
	proof := fmt.Sprintf("image %s (%s), disk %s", img.Name, bytes(img.RawSize), inventory.ListDisks([]inventory.Disk{disk}))
	said, err := w.bmcAnswers(ctx, s.m)
	if err != nil {
		return outcome{err: err}
	}
	id := disk.Identity()
	return outcome{proof: proof + said, update: func(_ *inventory.Machine, d *inventory.Deployment) { d.Disk = &id }}
}

// bmcAnswers makes sure that the BMC can be had, and says so for a proof.
func (w *worker) bmcAnswers(ctx context.Context, m inventory.Machine) (string, error) {
	if m.BMC.Address == "" {
		if m.BMC.Proposed != nil {
			return ", no BMC (" + diagnose.UnacceptedBMC(m) + ")", nil
		}
		return ", no BMC", nil
	}
	on, err := w.readPower(ctx, m)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(", BMC %s answers (power %s)", m.BMC.Address, onOff(on)), nil
}

// readPower asks the BMC, patiently: a BMC that shares the machine's NIC is deaf for seconds around a power change.
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
			sleep(ctx, cmp.Or(w.e.cfg.Pace.Poll, 2*time.Second))
		}
		on, err = b.Power(ctx)
		if err == nil || !errors.Is(err, power.ErrSilent) && !errors.Is(err, power.ErrBusy) {
			break
		}
	}
	return on, w.e.bmcProblem(m, err)
}

// bmcProblem gives a BMC's error the machine's name and the next move.
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

// bootAgent walks the machine into the agent: off, boot device PXE, read back, on.
func (w *worker) bootAgent(ctx context.Context, s *snapshot) outcome {
	if s.m.BMC.Address == "" {
		acted := "no BMC: waiting for somebody to reboot " + s.m.Name + " into network boot"
		if s.m.BMC.Proposed != nil {
			acted += "; " + diagnose.UnacceptedBMC(s.m) + ": `" + diagnose.AcceptCommand(s.m) + "`"
		}
		return outcome{acted: acted}
	}
	b, err := w.bmc(s.m)
	if err != nil {
		return outcome{err: err}
	}
	if err := power.Off(ctx, b, w.e.cfg.Pace); err != nil {
		return outcome{err: w.e.bmcProblem(s.m, err)}
	}
	if err := w.killNonces(ctx); err != nil {
		return outcome{err: err}
	}
	// The ladder: a machine that lost a one-time override gets a persistent one at the next walk.
	want := power.Boot{Device: power.DevicePXE, Persistent: s.record().Attempt > 1, EFI: isEFI(s.m)}
	said, err := w.startWith(ctx, b, s.m, want)
	return outcome{acted: said, err: err}
}

// startWith sets the boot device, reads it back and powers the machine on.
func (w *worker) startWith(ctx context.Context, b power.BMC, m inventory.Machine, want power.Boot) (said string, err error) {
	stands, err := power.AssertBoot(ctx, b, want, w.e.cfg.Pace)
	doubt := ""
	switch {
	case errors.Is(err, power.ErrNotKept):
		// Some BMCs do as they were told and read back something else: the proof will decide.
		doubt = fmt.Sprintf(" (the BMC reads back %s)", stands)
	case err != nil:
		return "", w.e.bmcProblem(m, err)
	case stands.Unread:
		doubt = " (the BMC refuses to tell what stands; the proof will decide)"
	}
	if err := power.On(ctx, b, w.e.cfg.Pace); err != nil {
		return "", w.e.bmcProblem(m, err)
	}
	if err := w.observed(ctx, true); err != nil {
		return "", err
	}
	return fmt.Sprintf("powered off, boot device %s%s, powered on", want, doubt), nil
}

func isEFI(m inventory.Machine) bool { return m.Report != nil && m.Report.Firmware == "uefi" }

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// killNonces makes every nonce issued until now worthless, with the agent that holds one: the machine is off.
func (w *worker) killNonces(ctx context.Context) error {
	_, err := call(ctx, w, func() (struct{}, error) {
		return struct{}{}, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.NoncesAfter, m.Boot = w.e.nonces.Issued(), nil
			if m.BMC.Address != "" { // else nobody has seen it off
				m.Power = inventory.Power{On: false, Known: true, ObservedAt: w.now(), Wanted: m.Power.Wanted}
			}
			return nil
		})
	})
	return err
}

// observed records a power reading.
func (w *worker) observed(ctx context.Context, on bool) error {
	_, err := call(ctx, w, func() (struct{}, error) {
		return struct{}{}, w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.Power.On, m.Power.Known, m.Power.ObservedAt = on, true, w.now()
			m.BMC.Error = ""
			return nil
		})
	})
	return err
}

// server is where the machine reaches the boot plane.
func (w *worker) server() netip.AddrPort {
	var ip netip.Addr
	if b := w.snap.Load().m.Boot; b != nil {
		ip, _ = netip.ParseAddr(b.IP)
	}
	return w.e.cfg.Server(ip)
}
