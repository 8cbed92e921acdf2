package ipxe

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What the boot plane holds open at once. Firmware and iPXE have one or two connections, an agent that
// writes an image a handful; a connection that waits for its request costs about 12 KiB and a descriptor.
const (
	maxConns          = 8192
	maxConnsPerClient = 64
)

// LimitConns bounds the connections that l hands out, for each client address and in all. What is beyond
// is closed at once, and not left waiting: a client that opens thousands of connections and sends
// nothing on them must not keep another machine from being accepted.
func LimitConns(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, clients: map[netip.Addr]int{}}
}

type limitedListener struct {
	net.Listener
	mu      sync.Mutex
	total   int
	clients map[netip.Addr]int
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := addrPort(c.RemoteAddr().String()).Addr()
		tcp, ok := c.(*net.TCPConn)
		if !ok || !l.take(client) {
			c.Close()
			continue
		}
		return &limitedConn{TCPConn: tcp, release: func() { l.give(client) }}, nil
	}
}

func (l *limitedListener) take(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || l.clients[client] >= maxConnsPerClient {
		return false
	}
	l.total++
	l.clients[client]++
	return true
}

func (l *limitedListener) give(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.clients[client]--; l.clients[client] == 0 {
		delete(l.clients, client)
	}
}

// A limitedConn is a TCPConn with all its methods: net/http finds ReadFrom on it, which is sendfile.
type limitedConn struct {
	*net.TCPConn
	closed  atomic.Bool
	release func()
}

// ReadFrom sends r with the socket corked (tcp(7)): only full segments leave until the end of r. Each sendfile ends in the middle of a
// segment when the socket's buffer is full; uncorked, that rest goes out on its own. A download of 1 GiB was at 0.72 of nginx (with
// tcp_nopush) before, and is at its side now.
func (c *limitedConn) ReadFrom(r io.Reader) (int64, error) {
	c.cork(1)
	defer c.cork(0)
	return c.TCPConn.ReadFrom(r)
}

// cork may fail without harm: it says when segments leave, not whether.
func (c *limitedConn) cork(on int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) })
	}
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.release()
	}
	return c.TCPConn.Close()
}
