package ipxe

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How slowly an answer may be taken: what is behind leastRate for longer than slack is cut. A disk that is
// written meanwhile does not hold up an agent's reading, so nobody honest is this slow: firmware on a busy
// emulator takes 100 times as much.
const (
	leastRate = 4 << 10 // bytes a second
	slack     = 30 * time.Second
	// piece is how much is sent between two looks at the rate.
	piece = 256 << 10
)

// A limitedConn is a TCPConn with all its methods: net/http finds ReadFrom on it, which is sendfile.
type limitedConn struct {
	*net.TCPConn
	of     *limitedListener
	client netip.Addr

	last   atomic.Int64 // UnixNano when bytes last moved
	began  atomic.Int64 // UnixNano when the answer to what the client sent last began
	taken  atomic.Int64 // bytes that it took of it
	closed atomic.Bool
}

func (c *limitedConn) touch()           { c.last.Store(time.Now().UnixNano()) }
func (c *limitedConn) moved() time.Time { return time.Unix(0, c.last.Load()) }

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.touch()
		c.taken.Store(0)
	}
	return n, err
}

// pace sets by when the next n bytes must have been taken.
func (c *limitedConn) pace(n int64) error {
	if c.taken.Load() == 0 {
		c.began.Store(time.Now().UnixNano())
	}
	behind := time.Duration(float64(c.taken.Load()+n) / float64(c.of.rate) * float64(time.Second))
	return c.TCPConn.SetWriteDeadline(time.Unix(0, c.began.Load()).Add(c.of.grace + behind))
}

func (c *limitedConn) sent(n int64) {
	if n > 0 {
		c.touch()
		c.taken.Add(n)
	}
}

func (c *limitedConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		part := p[n:min(len(p), n+piece)]
		if err = c.pace(int64(len(part))); err != nil {
			return n, err
		}
		var m int
		m, err = c.TCPConn.Write(part)
		c.sent(int64(m))
		n += m
	}
	return n, err
}

// ReadFrom sends r with the socket corked (tcp(7)): only full segments leave until the end of r. Each
// sendfile ends in the middle of a segment when the socket's buffer is full; uncorked, that rest goes out on
// its own. A download of 1 GiB was at 0.72 of nginx (with tcp_nopush) before, and is at its side now.
func (c *limitedConn) ReadFrom(r io.Reader) (sent int64, err error) {
	whole, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = whole.R.(*os.File)
	}
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	c.cork(1)
	defer c.cork(0)
	for whole.N > 0 && err == nil {
		part := &io.LimitedReader{R: whole.R, N: min(whole.N, piece)}
		if err = c.pace(part.N); err != nil {
			return sent, err
		}
		var n int64
		n, err = c.TCPConn.ReadFrom(part)
		c.sent(n)
		sent, whole.N = sent+n, whole.N-n
		if n == 0 {
			break // the file is shorter than was said
		}
	}
	return sent, err
}

// cork may fail without harm: it says when segments leave, not whether.
func (c *limitedConn) cork(on int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) })
	}
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.of.give(c)
	}
	return c.TCPConn.Close()
}

// abort closes without waiting for what was not taken. Its server's goroutine sees the end of it and gives it
// back.
func (c *limitedConn) abort() {
	_ = c.TCPConn.SetLinger(0)
	_ = c.TCPConn.Close()
}
