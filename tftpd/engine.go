package tftpd

import (
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// An engineConn is the connection that pin/tftp reads from and writes to instead of a socket. The library
// gets packets only of transfers whose client has proved its address, and one packet for each that it sent.
// It must not get more: in this mode (one port for all transfers) it panics at a packet that arrives when a
// transfer has just ended.
//
// The library tells transfers apart by the text of their clients' addresses. We put the transfer's number
// into the address as its zone.
type engineConn struct {
	local net.Addr
	sent  func(id uint64, packet []byte) // what the library sends

	mu       sync.Mutex
	queue    []enginePacket // short: at most one for each transfer
	deadline time.Time
	stopped  bool
	wake     chan struct{}
}

// stopPause is how long the library waits for a packet after stop.
const stopPause = 5 * time.Millisecond

type enginePacket struct {
	from *net.UDPAddr
	data []byte
}

func newEngineConn(local net.Addr, sent func(uint64, []byte)) *engineConn {
	return &engineConn{local: local, sent: sent, wake: make(chan struct{}, 1)}
}

// give passes a packet to the library without waiting.
func (c *engineConn) give(from *net.UDPAddr, data []byte) {
	c.mu.Lock()
	c.queue = append(c.queue, enginePacket{from, data})
	c.mu.Unlock()
	c.nudge()
}

func (c *engineConn) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take returns the oldest packet. Without one, until is when to stop waiting for it; zero: never.
func (c *engineConn) take() (p enginePacket, ok bool, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.queue) == 0 && c.stopped:
		return p, false, time.Now().Add(stopPause)
	case len(c.queue) == 0:
		return p, false, c.deadline
	}
	p, c.queue = c.queue[0], c.queue[1:]
	return p, true, until
}

// stop ends the library's wait for packets, which would last a second.
func (c *engineConn) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.nudge()
}

func (c *engineConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, ok, until := c.take()
		if ok {
			return copy(b, p.data), p.from, nil
		}
		if until.IsZero() {
			<-c.wake
			continue
		}
		left := time.Until(until)
		if left <= 0 {
			return 0, nil, os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
			return 0, nil, os.ErrDeadlineExceeded
		}
	}
}

func (c *engineConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.sent(numberOf(to), b)
	return len(b), nil
}

func (c *engineConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	c.nudge()
	return nil
}

func (c *engineConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *engineConn) SetWriteDeadline(time.Time) error { return nil }
func (c *engineConn) Close() error                     { return nil } // the server closes its sockets
func (c *engineConn) LocalAddr() net.Addr              { return c.local }

// numberOf returns the transfer's number in an address from the library, 0 for none.
func numberOf(a net.Addr) uint64 {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseUint(u.Zone, 10, 64)
	return n
}
