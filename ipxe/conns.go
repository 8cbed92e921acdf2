package ipxe

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Bounds on the boot plane's open connections. Firmware and iPXE have one or two, an agent that writes an
// image a handful. A connection that waits for its request costs about 20 KiB and a descriptor.
const (
	// MaxConns is for a port where machines fetch files.
	MaxConns = 4096
	// MaxTLSConns is for the agents' port. An agent has one or two connections. One costs 25 KiB when idle,
	// and several times as much with the garbage of handshakes in a flood of new ones.
	MaxTLSConns       = 1024
	maxConnsPerClient = 64
	// idleEnough is the idle time after which a connection may be closed for a new one.
	idleEnough = 5 * time.Second
)

// LimitConns bounds the connections that l accepts, for each client address and to most in all, and how slowly
// a client may take an answer. The handler that it returns serves h; by it, the listener learns which requests
// have arrived whole.
//
// When the listener has all connections that it may have, the one whose request has been unfinished for longest
// makes room, of the address with the most such ones. Bytes that trickle in keep no place. When no request is
// unfinished, the connection that was idle for longest is closed, of the address with the most connections; the
// same holds for an address that has all that it may have. So whoever opens thousands of connections and sends
// or takes nothing closes its own, and who has made a request is not displaced by who has made none.
func LimitConns(l net.Listener, most int, h http.Handler) (net.Listener, http.Handler) {
	limited := &limitedListener{
		Listener: l, most: most, rate: leastRate, grace: slack,
		clients: map[netip.Addr]map[*limitedConn]struct{}{},
	}
	return limited, limited.watch(h)
}

type limitedListener struct {
	net.Listener
	most    int
	rate    int64         // leastRate
	grace   time.Duration // slack; tests have others
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
		remote := c.RemoteAddr().String()
		conn := &limitedConn{
			TCPConn: tcp, of: l, remote: remote, client: addrPort(remote).Addr(), opened: time.Now(),
		}
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

// take counts a connection, and returns the one whose place it takes. ok is false when all are in use.
func (l *limitedListener) take(c *limitedConn) (victim *limitedConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case len(l.clients[c.client]) >= maxConnsPerClient:
		victim = mostIdle(l.clients[c.client])
	case l.total >= l.most:
		if victim = l.unfinished(); victim == nil {
			victim = l.idle()
		}
	}
	full, have := victim != nil, len(l.clients[c.client])
	// A client without a connection waits for nobody's unfinished request.
	first := have == 0 && full && !victim.whole()
	if full && !first && now.Sub(victim.moved()) < idleEnough && len(l.clients[victim.client]) <= have+1 {
		// All that could be closed are in use, and the address with the most has no more than this one.
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

// unfinished is the connection whose request has been unfinished for longest, of the address with the most
// such ones, or nil.
func (l *limitedListener) unfinished() (oldest *limitedConn) {
	most := 0
	for _, conns := range l.clients {
		n, first := 0, (*limitedConn)(nil)
		for c := range conns {
			if c.whole() {
				continue
			}
			if n++; first == nil || c.since().Before(first.since()) {
				first = c
			}
		}
		if n > most || n == most && n > 0 && first.since().Before(oldest.since()) {
			most, oldest = n, first
		}
	}
	return oldest
}

// idle is the connection that was idle for longest, of the address with the most connections.
func (l *limitedListener) idle() (longest *limitedConn) {
	most := 0
	for _, conns := range l.clients {
		if len(conns) < most {
			continue
		}
		if c := mostIdle(conns); len(conns) > most || c.moved().Before(longest.moved()) {
			most, longest = len(conns), c
		}
	}
	return longest
}

// mostIdle is the connection that was idle for longest.
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
