package deploy

import "github.com/pxectl/pxectl/inventory"

// BootAnswer is what a machine that asks for its boot script gets.
type BootAnswer struct {
	Agent bool   // run the agent with Nonce
	Nonce string //
	Local bool   // boot from the disk; neither: leave it alone
	Name  string // for the log
}

// BootOf decides what a machine boots. It reads snapshots only, so it always has an answer at once.
func (e *Engine) BootOf(mac inventory.MAC) BootAnswer {
	a := e.Boots(mac)
	if a.Agent {
		a.Nonce = e.nonces.Issue(mac)
	}
	return a
}

// Boots is BootOf without a nonce: a DHCP packet has no use for one.
func (e *Engine) Boots(mac inventory.MAC) BootAnswer {
	e.mu.RLock()
	w := e.byMAC[mac]
	e.mu.RUnlock()
	agent := BootAnswer{Agent: true, Name: string(mac)}
	if w == nil {
		if e.cfg.Policy == PolicyDeny {
			return BootAnswer{Name: string(mac)}
		}
	} else {
		s := w.snap.Load()
		w.asked.start(e.cfg.Elapsed())
		w.nudge()
		agent.Name = s.m.Name
		if bootsLocally(s) {
			return BootAnswer{Local: true, Name: s.m.Name}
		}
	}
	return agent
}

// bootsLocally says that a machine has a system of its own to run.
func bootsLocally(s *snapshot) bool {
	late := s.d != nil && (s.d.Step == inventory.BootOS || s.d.Step == inventory.VerifyOS)
	if s.intact() {
		return true
	}
	switch s.m.State {
	case inventory.Deploying, inventory.Failed:
		return late
	}
	return false
}
