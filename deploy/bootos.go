package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

const (
	// agentPowerOff is how long an agent may take to power its machine off before the BMC does it.
	agentPowerOff = 20 * time.Second
	// agentReboot is how long an agent may take to restart a machine without a BMC. After that somebody has
	// to restart it by hand.
	agentReboot = 5 * time.Minute
	// agentRepeats is longer than an agent takes to repeat what was not acknowledged. When it is silent for
	// so long after it said that it reboots, it repeats nothing.
	agentRepeats = 3 * time.Second
)

// bootOS ends the agent and starts the machine from its disk.
func (w *worker) bootOS(ctx context.Context, s *snapshot) outcome {
	id := orderID(s.d, s.record())
	if s.m.BMC.Address == "" {
		proof, err := w.agentReboots(ctx, s, id)
		if err != nil {
			return outcome{err: err}
		}
		return outcome{proof: proof, err: w.killNonces(ctx)}
	}
	b, err := w.bmc(s.m)
	if err != nil {
		return outcome{err: err}
	}
	// The agent powers off first: it syncs and takes its interfaces down. The BMC makes sure.
	var itself time.Duration
	if w.snap.Load().m.Boot != nil {
		w.orders.set(&inventory.Order{ID: id, Do: inventory.DoPowerOff})
		itself = agentPowerOff
	}
	off := func(ctx context.Context) error { return power.AwaitOff(ctx, b, itself, w.e.cfg.Pace) }
	if err := w.e.inTime(ctx, s.m, off); err != nil {
		return outcome{err: w.e.bmcProblem(s.m, err)}
	}
	if err := w.killNonces(ctx); err != nil {
		return outcome{err: err}
	}
	// Persistent, because it holds for every boot from now on; any boot uses up a one-time override.
	said, err := w.startWith(ctx, b, s.m, power.Boot{
		Device: power.DeviceDisk, Persistent: true, EFI: isEFI(s.m),
	})
	return outcome{proof: said, err: err}
}

// agentReboots tells the agent to restart the machine. It waits until the agent says that it does, or
// something else runs there. Silence proves nothing: an agent that hangs is as silent as a machine that
// starts.
func (w *worker) agentReboots(ctx context.Context, s *snapshot, id string) (proof string, err error) {
	told := w.e.cfg.Elapsed() // before the agent can have the order
	w.orders.set(&inventory.Order{ID: id, Do: inventory.DoReboot})
	for ctx.Err() == nil {
		acknowledged, waited := !w.orders.busy(), w.e.cfg.Elapsed()-told
		sign := w.startedSince()
		switch {
		case sign != "" && w.silence() > agentRepeats:
			return "something else than its agent runs on it: " + sign +
				"; there is no BMC to set its boot device", nil
		case acknowledged && w.silence() > agentRepeats:
			return "the agent says that it restarts the machine; " +
				"there is no BMC to set its boot device, or to see that it does", nil
		case waited > agentReboot && acknowledged:
			return "", &inventory.Problem{
				Code:   inventory.CodeTimeout,
				Detail: "the agent said that it restarts the machine, and still calls",
				Hint:   restartByHand(s),
			}
		case waited > agentReboot:
			return "", &inventory.Problem{
				Code: inventory.CodeTimeout,
				Detail: fmt.Sprintf("the agent was told to restart the machine and did not say that it does; "+
					"it called %s ago",
					w.silence().Round(time.Second)),
				Hint: restartByHand(s),
			}
		}
		_ = sleep.For(ctx, 100*time.Millisecond)
	}
	return "", ctx.Err()
}

func restartByHand(s *snapshot) string {
	return "look at its console, restart it by hand, and run `pxectl deployment retry " + s.m.Name +
		"`, which writes what differs"
}

// startedSince names a sign, since the machine was last sent to its disk, that something else than the agent
// runs there; "" for none. Anybody on the wire can forge it, so it is no proof.
func (w *worker) startedSince() string {
	switch began := w.began.at.Load(); {
	case w.asked.at.Load() > began:
		return "it asked for a network boot and was sent to its disk"
	case w.system.at.Load() > began:
		return "a system on it asked for an address"
	}
	return ""
}

// SawSystem records that a machine's operating system sent a DHCP packet: one that came neither from its
// firmware, nor from a boot program, nor from its agent.
func (e *Engine) SawSystem(mac inventory.MAC) {
	e.mu.RLock()
	w := e.byMAC[mac]
	e.mu.RUnlock()
	if w != nil {
		w.system.start(e.cfg.Elapsed())
	}
}

// verifyOS judges a system that did not phone home in time by other signs of it.
func (w *worker) verifyOS(ctx context.Context, s *snapshot) outcome {
	proof := "no phone-home"
	sign := w.startedSince()
	if sign != "" {
		proof += "; " + sign
	}
	if s.m.BMC.Address == "" {
		if sign == "" {
			proof += ", and nothing was seen of it since its agent was told to restart it: it may hang there"
		}
		return outcome{proof: proof + "; there is no BMC to ask"}
	}
	on, err := w.readPower(ctx, s.m)
	switch {
	case err != nil:
		proof += "; its BMC does not tell: " + err.Error()
	case !on:
		return outcome{err: &inventory.Problem{
			Code:   inventory.CodeTimeout,
			Detail: fmt.Sprintf("%s was started from its disk and is off now", s.m.Name),
			Hint: "look at its console: `pxectl console " + s.m.Name + "`; is image " + s.d.ImageName +
				" made for " + s.m.Report.Firmware + "?",
		}}
	default:
		proof += "; the machine is on"
	}
	return outcome{proof: proof}
}
