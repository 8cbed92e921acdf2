package deploy

import "github.com/pxectl/pxectl/inventory"

// BootDecision says what a machine boots. When neither Agent nor Local is set, the machine is left alone.
type BootDecision struct {
	Agent bool   // run the agent with Nonce
	Nonce string // "" without Agent, and from Engine.BootDecision
	Local bool   // boot from the disk
	Name  string // for the log
}

// IssueBoot decides what a machine boots, and issues a nonce when that is the agent. It reads snapshots only,
// so it answers at once.
func (e *Engine) IssueBoot(mac inventory.MAC) BootDecision {
	a := e.BootDecision(mac)
	if a.Agent {
		a.Nonce = e.nonces.Issue(mac)
	}
	return a
}

// BootDecision is IssueBoot without a nonce, for DHCP packets.
func (e *Engine) BootDecision(mac inventory.MAC) BootDecision {
	e.mu.RLock()
	w := e.byMAC[mac]
	e.mu.RUnlock()
	agent := BootDecision{Agent: true, Name: string(mac)}
	if w == nil {
		if e.cfg.Policy == PolicyDeny {
			return BootDecision{Name: string(mac)}
		}
	} else {
		s := w.snap.Load()
		w.asked.start(e.cfg.Elapsed())
		w.nudge()
		agent.Name = s.m.Name
		if bootsLocally(s) {
			return BootDecision{Local: true, Name: s.m.Name}
		}
	}
	return agent
}

// bootsLocally says whether a machine boots the system on its disk.
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
