package deploy

import (
	"fmt"

	"github.com/pxectl/pxectl/inventory"
)

// recognize looks a machine up: by its MAC, or by its UUID while it has no MAC.
func (e *Engine) recognize(mac inventory.MAC, uuid string) *worker {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if w := e.byMAC[mac]; w != nil || uuid == "" {
		return w
	}
	for _, w := range e.workers {
		m := &w.snap.Load().m
		// Only a machine without MACs: boards are made with the same UUID, and every boot sends it in the
		// clear.
		if m.UUID == uuid && len(m.MACs) == 0 {
			return w
		}
	}
	return nil
}

// adopt adds the MAC that was the first to say a machine's UUID to the machine, which was announced without one.
func adopt(m *inventory.Machine, mac inventory.MAC) inventory.Event {
	m.MACs, m.Adopted = []inventory.MAC{mac}, mac
	return inventory.Event{
		Kind: inventory.KindAgent, MAC: mac, Text: "known by its UUID; booted from " + string(mac),
	}
}

// noteSameUUID notes with a machine that was adopted by its UUID that another MAC says the same one: the first
// may have been a stranger, and this one the machine.
func (e *Engine) noteSameUUID(r inventory.Registration, ip string) {
	if r.UUID == "" {
		return
	}
	e.mu.RLock()
	var notes []inventory.Event
	for _, w := range e.workers {
		if m := &w.snap.Load().m; m.Adopted != "" && m.UUID == r.UUID {
			notes = append(notes, inventory.Event{
				Machine: w.id, MAC: r.MAC, Kind: inventory.KindAgent,
				Text: fmt.Sprintf("%s at %s says the UUID of this machine, which %s was the first to say", r.MAC, ip,
					m.Adopted),
				Data: map[string]string{inventory.DataIntruder: ip, inventory.DataUUID: r.UUID},
			})
		}
	}
	e.mu.RUnlock()
	for _, ev := range notes {
		e.Note(ev)
	}
}
