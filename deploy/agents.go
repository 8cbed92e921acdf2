package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/inventory"
)

const (
	longPoll = 20 * time.Second
	// A nonce that no agent has shown is valid for as long as one boot takes on a slow machine: firmware,
	// kernel and ramdisk.
	nonceLife = time.Hour
	// displace is how long an agent at work must be silent before another one may replace it. An agent calls
	// at least every 20 s.
	displace = 30 * time.Second
)

// refusedCall returns the data of an event about a refused call.
func refusedCall() map[string]string { return map[string]string{inventory.DataRefused: "yes"} }

func refused(detail, hint string) error {
	return &inventory.Problem{Code: inventory.CodeRefused, Detail: detail, Hint: hint}
}

// Register takes an agent's first call of a boot. The first agent to show a nonce spends it, and owns the
// boot with the key that its connection proved.
func (e *Engine) Register(
	ctx context.Context, c inventory.Caller, r inventory.Registration,
) (inventory.Registered, error) {
	none := inventory.Registered{}
	r, err := r.Parsed()
	if err != nil {
		return none, &inventory.Problem{
			Code: inventory.CodeInvalid, Detail: "registration: " + err.Error(), Err: err,
		}
	}
	n, err := e.nonces.Verify(c.Nonce)
	if err != nil {
		e.Note(inventory.Event{
			MAC:  r.MAC,
			Kind: inventory.KindAgent,
			Text: "registration from " + c.IP + " refused: " + err.Error(),
			Data: refusedCall(),
		})
		return none, refused(err.Error(),
			"boot the machine from the network again: the boot script carries a fresh one")
	}
	switch {
	case r.MAC != n.MAC:
		e.Note(inventory.Event{
			MAC:  n.MAC,
			Kind: inventory.KindAgent,
			Text: fmt.Sprintf("registration as %s refused: the nonce was issued to %s", r.MAC, n.MAC),
			Data: refusedCall(),
		})
		return none, refused(fmt.Sprintf("the nonce was issued to %s, not to %s", n.MAC, r.MAC),
			"boot the machine from the network again")
	case c.Key == "":
		const old = "the agent shows no key of its own: its ramdisk is older than this pxectl"
		e.Note(inventory.Event{
			MAC:  n.MAC,
			Kind: inventory.KindAgent,
			Text: "registration from " + c.IP + " refused: " + old,
			Data: refusedCall(),
		})
		return none, refused(old,
			"build it again with `pxectl ramdisk build`, and boot the machine from the network again")
	}
	w := e.recognize(r.MAC, r.UUID)
	end, err := e.turn(ctx, e.registers, w == nil || w.snap.Load().m.State == inventory.Discovered, c.IP)
	if err != nil {
		return none, err
	}
	defer end()
	boot := inventory.Boot{
		Nonce: n.Serial, BootID: r.BootID, Key: c.Key, MAC: r.MAC, IP: c.IP, RegisteredAt: e.cfg.Now().UTC(),
	}
	said := inventory.Event{
		Kind: inventory.KindAgent,
		MAC:  r.MAC,
		Wire: true,
		Text: fmt.Sprintf("the agent registered from %s, %.1f s after its kernel started", c.IP,
			float64(r.Uptime)/1000),
	}
	w, err = e.machineOf(ctx, n, r, boot, said)
	if err != nil {
		return none, err
	}
	return call(ctx, w, func() (inventory.Registered, error) {
		m := w.snap.Load().m
		// In a deployment a younger nonce does not displace the agent that is at work: anybody on the wire
		// can ask for one. A machine that really rebooted has been silent for longer, or tries again.
		atWork := w.snap.Load().running() && w.agentSilence() < displace
		adopts := !slices.Contains(m.MACs, r.MAC)
		if adopts && len(m.MACs) > 0 {
			// It asks again, and is a stranger then.
			return none, &inventory.Problem{
				Code: inventory.CodeConflict, Detail: "another MAC has said the machine's UUID a moment before",
			}
		}
		if err := admits(m, n, c.Key, r.BootID, atWork); err != nil {
			ev := inventory.Event{
				Machine: w.id, MAC: r.MAC, Kind: inventory.KindAgent,
				Text: "registration from " + c.IP + " refused: " + err.Error(), Data: refusedCall(),
			}
			if m.Boot != nil && m.Boot.Nonce == n.Serial {
				ev.Data[inventory.DataIntruder] = c.IP
			}
			e.Note(ev)
			return none, err
		}
		w.touch()
		if adopts || m.Boot == nil || m.Boot.Nonce != n.Serial {
			err := w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
				m.Boot = &boot
				if m.UUID == "" {
					m.UUID = r.UUID
				}
				if !adopts {
					return []inventory.Event{said}
				}
				return []inventory.Event{adopt(m, r.MAC), said}
			})
			if err != nil {
				return none, err
			}
		}
		if adopts {
			e.mu.Lock()
			e.index(w)
			e.mu.Unlock()
		}
		return inventory.Registered{Machine: w.id, Name: m.Name, Time: w.now()}, nil
	})
}

// admits says whether an agent that shows the nonce may speak for the machine.
func admits(m inventory.Machine, n nonce.Nonce, key, bootID string, atWork bool) error {
	const again = "boot the machine from the network again"
	switch {
	case m.Boot != nil && m.Boot.Nonce == n.Serial && m.Boot.Key == key && m.Boot.BootID == bootID:
		return nil
	case m.Boot != nil && m.Boot.Nonce == n.Serial:
		return refused("the nonce was spent at "+m.Boot.RegisteredAt.Format(time.TimeOnly)+" from "+m.Boot.IP+
			", by another agent",
			again+"; if that was not this machine, somebody on the wire replays its boot script")
	case m.Boot != nil && atWork:
		// A conflict, and no refusal: after a power loss the new agent asks again until its predecessor
		// counts as gone.
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: "another agent is at work on this machine, from " + m.Boot.IP,
			Hint:   "if the machine rebooted by itself, it is let in half a minute after that agent's last call",
		}
	case n.Serial.Compare(m.NoncesAfter) <= 0:
		return refused("the nonce is of a boot that has ended: the machine was powered off since", again)
	case m.Boot != nil && n.Serial.Compare(m.Boot.Nonce) < 0:
		return refused("the nonce is older than the boot that registered last", again)
	case n.Age > nonceLife:
		return refused(fmt.Sprintf("the nonce is %s old and was never used", n.Age.Round(time.Minute)), again)
	}
	return nil
}

// machineOf finds the machine of a MAC, or of the UUID when the machine was announced by that alone; a stranger
// becomes a new machine.
func (e *Engine) machineOf(
	ctx context.Context, n nonce.Nonce, r inventory.Registration, boot inventory.Boot, said inventory.Event,
) (*worker, error) {
	if w := e.recognize(r.MAC, r.UUID); w != nil {
		return w, nil
	}
	e.noteSameUUID(r, boot.IP)
	if e.cfg.Policy == PolicyDeny {
		return nil, refused(fmt.Sprintf("machine %s is not known, and discovery.policy is deny", r.MAC),
			"announce it: `pxectl machine add NAME --mac "+string(r.MAC)+"`")
	}
	m := inventory.Machine{State: inventory.Discovered, MACs: []inventory.MAC{r.MAC}, UUID: r.UUID}
	if err := admits(m, n, boot.Key, boot.BootID, false); err != nil {
		return nil, err
	}
	m.Boot = &boot
	w, err := e.admit(ctx, m, boot.IP,
		inventory.Event{Kind: inventory.KindState, MAC: r.MAC, Text: "registered itself: discovered"}, said)
	if err != nil {
		// An operator has announced it meanwhile.
		if other := e.recognize(r.MAC, ""); other != nil {
			return other, nil
		}
	}
	return w, err
}

// agent finds the worker of the agent that registered with this nonce and this key. Anybody may have
// overheard the nonce.
func (e *Engine) agent(c inventory.Caller) (*worker, error) {
	const again = "boot the machine from the network again"
	n, err := e.nonces.Verify(c.Nonce)
	if err != nil {
		return nil, refused(err.Error(), again)
	}
	e.mu.RLock()
	w := e.byMAC[n.MAC]
	e.mu.RUnlock()
	if w == nil {
		return nil, refused(fmt.Sprintf("machine %s is not known any more", n.MAC),
			"it registers anew at its next network boot")
	}
	b := w.snap.Load().m.Boot
	switch {
	case b == nil || b.Nonce != n.Serial:
		return nil, refused("the nonce is of a boot that has ended", again)
	case c.Key == "" || b.Key != c.Key:
		e.intruder(w, c, "a call from "+c.IP+
			" refused: it shows this boot's nonce, and not the key of its agent")
		return nil, refused("the nonce is another agent's", again)
	}
	return w, nil
}

// speaks is agent for calls that name their boot. It refuses another boot's call, and records that the agent
// called.
func (e *Engine) speaks(c inventory.Caller, bootID string) (*worker, error) {
	w, err := e.agent(c)
	if err != nil {
		return nil, err
	}
	if b := w.snap.Load().m.Boot; b == nil || bootID == "" || b.BootID != bootID {
		e.intruder(w, c, "a call from "+c.IP+" refused: it does not name the boot that registered")
		return nil, refused("the nonce is another boot's", "boot the machine from the network again")
	}
	w.touch()
	return w, nil
}

// intruder notes that somebody else than its agent speaks for a machine.
func (e *Engine) intruder(w *worker, c inventory.Caller, text string) {
	e.Note(inventory.Event{
		Machine: w.id,
		Kind:    inventory.KindAgent,
		Text:    text,
		Data:    map[string]string{inventory.DataIntruder: c.IP, inventory.DataRefused: "yes"},
	})
}

// Next returns an agent's order. It waits up to 20 s for one, and then returns DoWait.
func (e *Engine) Next(ctx context.Context, c inventory.Caller, a inventory.Ask) (inventory.Order, error) {
	w, err := e.speaks(c, a.BootID)
	if err != nil {
		return inventory.Order{}, err
	}
	// The agent may have been silent for long, so make the worker look at the facts again.
	if _, err := call(ctx, w, func() (struct{}, error) { return struct{}{}, nil }); err != nil {
		return inventory.Order{}, err
	}
	o := w.orders.wait(ctx, longPoll)
	if _, err := e.agent(c); err != nil {
		return inventory.Order{}, err // its boot has ended meanwhile: the order is another agent's
	}
	if !w.cut.since(&w.seen) { // else nobody may be there any more: a call is held as long for a machine that is off
		w.touch()
	}
	if o == nil {
		return inventory.Order{Do: inventory.DoWait}, ctx.Err()
	}
	e.Note(inventory.Event{
		Machine: w.id,
		Kind:    inventory.KindAgent,
		Text:    "the agent was told to " + o.Do,
		Data:    map[string]string{inventory.DataOrder: o.ID},
	})
	return *o, nil
}

// errOrderGone says that an order is no longer wanted; the agent drops it and asks for the next.
var errOrderGone = &inventory.Problem{Code: inventory.CodeConflict, Detail: "the order is no longer wanted"}

// OrderProgress records how far an order is, in memory only.
func (e *Engine) OrderProgress(
	_ context.Context, c inventory.Caller, order string, p inventory.Progress,
) error {
	w, err := e.speaks(c, p.BootID)
	if err != nil {
		return err
	}
	if !w.orders.is(order) {
		// After a restart of the appliance the worker sets the order again soon after it sees the agent.
		if s := w.snap.Load(); s.record() == nil || orderID(s.d, s.record()) != order {
			return errOrderGone
		}
	}
	if old := w.progress.Load(); old == nil || old.Done != p.Done || old.Phase != p.Phase {
		w.moved.start(w.e.cfg.Elapsed())
	}
	w.progress.Store(&p)
	return nil
}

// OrderResult takes an order's result. When it returns nil, the result is on disk.
func (e *Engine) OrderResult(
	ctx context.Context, c inventory.Caller, order string, r inventory.Result,
) error {
	w, err := e.speaks(c, r.BootID)
	if err != nil {
		return err
	}
	r = r.Bounded()
	if r.Report != nil { // it stays in memory until the worker has time
		rep := r.Report.Bounded(maxReport(w.snap.Load().m))
		r.Report = &rep
	}
	what := "an order that no longer stands"
	if s := w.snap.Load(); s.record() != nil && orderID(s.d, s.record()) == order {
		what = string(s.record().Step)
		if r.Disk != nil {
			what += " of " + r.Disk.Name
		}
	} else if strings.HasPrefix(order, "inspect-") {
		what = inventory.DoInspect
	}
	said := inventory.Event{
		Machine: w.id,
		Kind:    inventory.KindAgent,
		Text:    "the agent says that " + what + " is done",
		Data:    map[string]string{inventory.DataOrder: order},
	}
	if r.Error != "" {
		said.Text = "the agent says of " + what + ": " + r.Error
	}
	e.Note(said)
	_, err = call(ctx, w, func() (struct{}, error) {
		// After a restart of the appliance the order may not have been set again yet.
		if s := w.snap.Load(); s.record() != nil && orderID(s.d, s.record()) == order {
			w.orders.set(&inventory.Order{ID: order})
		}
		return struct{}{}, w.result(order, r)
	})
	return err
}

// MayRead returns an error unless the caller is a registered agent. Every agent may read every image's
// manifest, since images hold no secrets.
func (e *Engine) MayRead(_ context.Context, c inventory.Caller, bootID, _ string) error {
	_, err := e.speaks(c, bootID)
	return err
}
