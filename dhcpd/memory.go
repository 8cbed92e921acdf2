package dhcpd

import (
	"sync"
	"time"
)

const (
	memoryFor = time.Minute
	memoryMax = 4096 // per half, so that a flood of made-up addresses stays cheap
)

// A memory keeps the architecture of each MAC's DISCOVER for one to two minutes. It has two halves: when the
// young one is full, or a minute old, it replaces the old one.
type memory struct {
	mu         sync.Mutex
	young, old map[string]Arch
	since      time.Time
}

func (m *memory) put(mac string, a Arch, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ageLocked(now)
	m.young[mac] = a
}

func (m *memory) get(mac string, now time.Time) (Arch, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ageLocked(now)
	if a, ok := m.young[mac]; ok {
		return a, true
	}
	a, ok := m.old[mac]
	return a, ok
}

func (m *memory) ageLocked(now time.Time) {
	switch age := now.Sub(m.since); {
	case age >= 2*memoryFor:
		m.young, m.old, m.since = map[string]Arch{}, nil, now
	case age >= memoryFor || len(m.young) >= memoryMax:
		m.young, m.old, m.since = map[string]Arch{}, m.young, now
	}
}
