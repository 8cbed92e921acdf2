package lab

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/bougou/go-ipmi/pkg/hal"
)

// A console is the serial port of one machine. It outlives the QEMU process, so that its log and a SOL
// session go on over power cycles without losing a byte.
type console struct {
	log *os.File

	mu    sync.Mutex
	guest net.Conn // nil while the machine is off
	users map[*consoleUser]bool
}

func newConsole(logPath string) (*console, error) {
	f, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &console{log: f, users: map[*consoleUser]bool{}}, nil
}

// serve copies the guest's output until its end of conn closes.
func (c *console) serve(conn net.Conn) {
	c.mu.Lock()
	c.guest = conn
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.guest = nil
		c.mu.Unlock()
		conn.Close()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			_, _ = c.log.Write(buf[:n])
			c.mu.Lock()
			for u := range c.users {
				u.offer(buf[:n])
			}
			c.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Open attaches a SOL session; [hal.ConsoleHAL].
func (c *console) Open(context.Context) (hal.ConsoleConn, error) {
	u := &consoleUser{console: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[u] = true
	return u, nil
}

// consoleBacklog bounds the output that is kept for a SOL session that does not read; the oldest is dropped
// first.
const consoleBacklog = 1 << 20

// A consoleUser is an attached SOL session. The console's lock guards its fields.
type consoleUser struct {
	console *console
	pending []byte
	closed  bool
}

func (u *consoleUser) offer(p []byte) {
	u.pending = append(u.pending, p...)
	if extra := len(u.pending) - consoleBacklog; extra > 0 {
		u.pending = append([]byte(nil), u.pending[extra:]...)
	}
}

// ReadAvailable never blocks.
func (u *consoleUser) ReadAvailable(p []byte) (int, error) {
	u.console.mu.Lock()
	defer u.console.mu.Unlock()
	if u.closed {
		return 0, io.EOF
	}
	n := copy(p, u.pending)
	u.pending = u.pending[n:]
	return n, nil
}

// Write types into the guest. While the machine is off, the bytes are lost, as on a real serial line.
func (u *consoleUser) Write(p []byte) (int, error) {
	u.console.mu.Lock()
	guest := u.console.guest
	u.console.mu.Unlock()
	if guest == nil {
		return len(p), nil
	}
	_ = guest.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // the guest may not read its UART
	n, err := guest.Write(p)
	if err != nil && n < len(p) {
		return n, err
	}
	return n, nil
}

// SendBreak: a socket has none.
func (u *consoleUser) SendBreak(context.Context) error { return hal.ErrNotSupported }

func (u *consoleUser) Close() error {
	u.console.mu.Lock()
	defer u.console.mu.Unlock()
	u.closed = true
	delete(u.console.users, u)
	return nil
}
