package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// bootAgent boots the machine into the agent: off, boot device PXE, read back, on.
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
	off := func(ctx context.Context) error { return power.Off(ctx, b, w.e.cfg.Pace) }
	if err := w.e.inTime(ctx, s.m, off); err != nil {
		return outcome{err: w.e.bmcProblem(s.m, err)}
	}
	if err := w.killNonces(ctx); err != nil {
		return outcome{err: err}
	}
	// A machine that lost a one-time override gets a persistent one at the next attempt.
	want := power.Boot{Device: power.DevicePXE, Persistent: s.record().Attempt > 1, EFI: isEFI(s.m)}
	said, err := w.startWith(ctx, b, s.m, want)
	return outcome{acted: said, err: err}
}

// startWith sets the boot device, reads it back and powers the machine on.
func (w *worker) startWith(
	ctx context.Context, b power.BMC, m inventory.Machine, want power.Boot,
) (said string, err error) {
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
	on := func(ctx context.Context) error { return power.On(ctx, b, w.e.cfg.Pace) }
	if err := w.e.inTime(ctx, m, on); err != nil {
		return "", w.e.bmcProblem(m, err)
	}
	if err := w.switchedOn(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("powered off, boot device %s%s, powered on", want, doubt), nil
}

func isEFI(m inventory.Machine) bool { return m.Report != nil && m.Report.Firmware == "uefi" }
