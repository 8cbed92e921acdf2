package tftpd

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A wire that drops large packets in silence (a tunnel, a switch port with a smaller MTU,
// a ROM that cannot put fragments together) lets the request and the OACK through and
// loses the blocks. The firmware gives up and tries again, so what we learned from the
// first try must outlive it.

// blockSizes is the most that a client gets in a block, one step smaller after each stall: all of Ethernet;
// with room for a tunnel's headers or two VLAN tags; what old ROMs take; what everything takes (RFC 1350).
var blockSizes = [...]int{blockSize, 1428, 1024, minBlock}

const (
	minBlock = 512

	// A transfer has stalled when its client has not acknowledged a block for so long. That is checked when
	// the transfer ends, and when the client asks again. Healthy firmware acknowledges within milliseconds.
	stallTime = ackTimeout

	// Clients that are remembered. Beyond that the least recently seen is forgotten. An entry is about 150
	// bytes.
	maxStalled = 4096
	// A client that asked for nothing for so long gets full blocks again: its cable or switch may be mended.
	stallMemory = 24 * time.Hour
)

// stalls remembers how far down in blockSizes clients are.
type stalls struct {
	now func() time.Time

	mu      sync.Mutex
	clients map[string]stalled
	running map[netip.Addr]map[*attempt]struct{}
}

type stalled struct {
	step int
	seen time.Time
}

// An attempt is a transfer under way.
type attempt struct {
	client string     // under which its stalls are remembered
	addr   netip.Addr // by which its transfers are counted
	block  int
	began  time.Time
	// moved is 1 plus the nanoseconds from began until its last block was first sent; 0 before the first
	// block.
	moved   atomic.Int64
	counted bool // its stall has been counted; guarded by stalls.mu
}

func newStalls(now func() time.Time) *stalls {
	return &stalls{now: now, clients: map[string]stalled{}, running: map[netip.Addr]map[*attempt]struct{}{}}
}

// limit is the largest block that a client is sent.
func (s *stalls) limit(client string, addr netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for old := range s.running[addr] {
		s.stepDown(old)
	}
	step := 0
	if c, ok := s.clients[client]; ok && s.now().Sub(c.seen) < stallMemory {
		step = c.step
		s.clients[client] = stalled{step, s.now()}
	}
	return blockSizes[step]
}

// count is how many transfers of an address run.
func (s *stalls) count(addr netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running[addr])
}

// begin counts a transfer.
func (s *stalls) begin(client string, addr netip.Addr, block int) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &attempt{client: client, addr: addr, block: block, began: s.now()}
	if s.running[addr] == nil {
		s.running[addr] = map[*attempt]struct{}{}
	}
	s.running[addr][a] = struct{}{}
	return a
}

// end ends a transfer's count. well says that the client acknowledged the whole file.
func (s *stalls) end(a *attempt, well bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running[a.addr], a)
	if len(s.running[a.addr]) == 0 {
		delete(s.running, a.addr)
	}
	if !well {
		s.stepDown(a)
	}
}

// stepDown takes a client one step down when its transfer has stalled. Transfers that stall side by side with
// the same block size count once.
func (s *stalls) stepDown(a *attempt) {
	moved := a.moved.Load()
	if a.counted || a.block == minBlock || moved == 0 ||
		s.now().Sub(a.began)-time.Duration(moved) < stallTime {
		return
	}
	a.counted = true
	step := s.clients[a.client].step
	for step < len(blockSizes)-1 && blockSizes[step] >= a.block {
		step++
	}
	if _, known := s.clients[a.client]; !known && len(s.clients) >= maxStalled {
		s.forgetOne()
	}
	s.clients[a.client] = stalled{step, s.now()}
}

func (s *stalls) forgetOne() {
	var oldest string
	for client, c := range s.clients {
		if o := s.clients[oldest]; oldest == "" || c.seen.Before(o.seen) {
			oldest = client
		}
	}
	delete(s.clients, oldest)
}

// touch notes that a block is sent. It keeps a duration and no time of day, since the clock may be set.
func (a *attempt) touch(now time.Time) { a.moved.Store(int64(now.Sub(a.began)) + 1) }
