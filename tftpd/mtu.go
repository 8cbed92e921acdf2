package tftpd

import (
	"net"
	"sync"
	"time"
)

const (
	mtuFor = 10 * time.Second
	maxMTU = 64 // interfaces
	// Bytes around a block in a frame: the headers of IP, UDP and TFTP.
	headers = 20 + 8 + 4
)

// mtus remembers the MTU of interfaces for a while. Asking the kernel for each request would cost more than
// all else that a request costs.
type mtus struct {
	mu    sync.Mutex
	since time.Time
	of    map[int]int
}

// blockSize is the largest block that an interface sends in one frame.
func (m *mtus) blockSize(ifindex int, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.since) >= mtuFor || len(m.of) >= maxMTU {
		m.since, m.of = now, map[int]int{}
	}
	mtu, ok := m.of[ifindex]
	if !ok {
		mtu = blockSize + headers
		if i, err := net.InterfaceByIndex(ifindex); err == nil {
			mtu = i.MTU
		}
		m.of[ifindex] = mtu
	}
	return max(min(blockSize, mtu-headers), minBlock)
}
