package ipmi

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/pxectl/pxectl/power/powertest"
)

// unreachable is a socket that an ICMP message "port unreachable" reaches twice: before a message of the
// session, and while its answer is awaited.
type unreachable struct {
	net.Conn
	write, read bool // they have returned the error
}

func (u *unreachable) Write(p []byte) (int, error) {
	if inSession(p) && !u.write {
		u.write = true
		return 0, &net.OpError{Op: "write", Err: syscall.ECONNREFUSED}
	}
	return u.Conn.Write(p)
}

func (u *unreachable) Read(p []byte) (int, error) {
	if u.write && !u.read {
		u.read = true
		return 0, &net.OpError{Op: "read", Err: syscall.ECONNREFUSED}
	}
	return u.Conn.Read(p)
}

// Anybody can send an ICMP message that says that nothing listens. It does not end a session.
func TestPortUnreachableDoesNotEndASession(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	d := quick()
	var socket *unreachable
	d.dial = func(_ context.Context, addr netip.AddrPort) (net.Conn, error) {
		conn, err := net.Dial("udp", addr.String())
		socket = &unreachable{Conn: conn}
		return socket, err
	}
	if _, err := r.open(t, d, powertest.Password).Power(t.Context()); err != nil || !socket.read {
		t.Errorf("Power() = %v (told so: %v), want that the session went on", err, socket.read)
	}
}
