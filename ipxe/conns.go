package ipxe

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// What the boot plane holds open at once. Firmware and iPXE have one or two connections, an agent that
// writes an image a handful; a connection that waits for its request costs about 12 KiB and a descriptor.
const (
	maxConns          = 8192
	maxConnsPerClient = 64
	// idleEnough is how long nothing has moved on a connection that makes room for a new one.
	idleEnough = 5 * time.Second
)

// LimitConns bounds the connections that l hands out, for each client address and in all, and how slowly an
// answer may be taken. When an address has all that it may have, or when there are too many in all, the
// connection on which nothing has moved for longest is closed for the new one: its own, or that of the
// address which has most. So whoever opens thousands of connections, and sends nothing or takes nothing,
// closes his own, and another machine is always accepted.
func LimitConns(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, most: maxConns, rate: leastRate, grace: slack, clients: map[netip.Addr]map[*limitedConn]struct{}{}}
}

type limitedListener struct {
	net.Listener
	most    int           // maxConns, and
	rate    int64         // leastRate
	grace   time.Duration // and slack, but for tests
	mu      sync.Mutex
	total   int
	clients map[netip.Addr]map[*limitedConn]struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			continue
		}
		conn := &limitedConn{TCPConn: tcp, of: l, client: addrPort(c.RemoteAddr().String()).Addr()}
		conn.touch()
		victim, ok := l.take(conn)
		if victim != nil {
			victim.abort()
		}
		if !ok {
			tcp.Close()
			continue
		}
		return conn, nil
	}
}

// take counts a connection, and says which other one it takes the place of. ok is false when there is none
// that may go.
func (l *limitedListener) take(c *limitedConn) (victim *limitedConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case len(l.clients[c.client]) >= maxConnsPerClient:
		victim = mostIdle(l.clients[c.client])
	case l.total >= l.most:
		victim = mostIdle(l.clients[l.busiest()])
	}
	full := victim != nil
	if full && now.Sub(victim.moved()) < idleEnough && len(l.clients[victim.client]) <= len(l.clients[c.client])+1 {
		// All that could go are at work, and their owner has no more of them than who asks.
		return nil, false
	}
	if full {
		l.dropLocked(victim)
	}
	l.total++
	if l.clients[c.client] == nil {
		l.clients[c.client] = map[*limitedConn]struct{}{}
	}
	l.clients[c.client][c] = struct{}{}
	return victim, true
}

// busiest is the address that has most connections.
func (l *limitedListener) busiest() (most netip.Addr) {
	for a, conns := range l.clients {
		if len(conns) > len(l.clients[most]) {
			most = a
		}
	}
	return most
}

// mostIdle is the connection on which nothing has moved for longest.
func mostIdle(conns map[*limitedConn]struct{}) (idle *limitedConn) {
	for c := range conns {
		if idle == nil || c.moved().Before(idle.moved()) {
			idle = c
		}
	}
	return idle
}

func (l *limitedListener) give(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(c)
}

func (l *limitedListener) dropLocked(c *limitedConn) {
	if _, ok := l.clients[c.client][c]; !ok {
		return
	}
	l.total--
	delete(l.clients[c.client], c)
	if len(l.clients[c.client]) == 0 {
		delete(l.clients, c.client)
	}
}
