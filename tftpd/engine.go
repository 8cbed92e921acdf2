package tftpd

import (
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// An engineConn is what the library takes for its socket. Only transfers whose client has proved its address
// reach it, and of each one packet for each that the library sent: it may not be given more, since in this
// mode (one port for all transfers) it panics at a packet that arrives when a transfer has just ended.
//
// The library tells transfers apart by the text of their clients' addresses. Ours carry the transfer's number
// as their zone.
type engineConn struct {
	local net.Addr
	sent  func(id uint64, packet []byte) // what the library sends

	mu       sync.Mutex
	queue    []enginePacket // never long: one for each transfer
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

// take is the oldest packet, or when to stop waiting for one; zero: never.
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

// stop ends the library's wait for packets early; it would wait for a second.
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
func (c *engineConn) Close() error                     { return nil } // there is nothing to close; the sockets are the server's
func (c *engineConn) LocalAddr() net.Addr              { return c.local }

// numberOf is the transfer that an address of the library's stands for.
func numberOf(a net.Addr) uint64 {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseUint(u.Zone, 10, 64)
	return n
}
