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

// The least rate at which a client may take an answer. A client that is behind leastRate for longer than
// slack is cut off. No honest one is that slow: firmware on a busy emulator takes 100 times as much, and an
// agent reads while its disk is written.
const (
	leastRate = 4 << 10 // bytes a second
	slack     = 30 * time.Second
	// piece is the number of bytes to send between two checks of the rate.
	piece = 256 << 10
)

// A limitedConn is a TCPConn with all its methods: net/http finds ReadFrom on it and uses sendfile.
type limitedConn struct {
	*net.TCPConn
	of     *limitedListener
	remote string // client and port
	client netip.Addr

	opened time.Time    // times are counted from here: the time of day may be set
	last   atomic.Int64 // nanoseconds until bytes last moved
	began  atomic.Int64 // nanoseconds until the answer to the client's last bytes began
	taken  atomic.Int64 // bytes of that answer that the client took
	asked  atomic.Int64 // nanoseconds until its unfinished request began, with TLS its handshake; or done
	closed atomic.Bool
}

// done is the value of limitedConn.asked when no request is unfinished.
const done = -1

func (c *limitedConn) touch()           { c.last.Store(int64(time.Since(c.opened))) }
func (c *limitedConn) moved() time.Time { return c.opened.Add(time.Duration(c.last.Load())) }

// whole says whether all requests on the connection arrived whole, and there was one.
func (c *limitedConn) whole() bool { return c.asked.Load() == done }

// since is when the unfinished request began.
func (c *limitedConn) since() time.Time { return c.opened.Add(time.Duration(c.asked.Load())) }

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.touch()
		c.taken.Store(0)
		c.asked.CompareAndSwap(done, int64(time.Since(c.opened)))
	}
	return n, err
}

// pace sets the deadline by which the client must have taken the next n bytes.
func (c *limitedConn) pace(n int64) error {
	if c.taken.Load() == 0 {
		c.began.Store(int64(time.Since(c.opened)))
	}
	behind := time.Duration(float64(c.taken.Load()+n) / float64(c.of.rate) * float64(time.Second))
	return c.TCPConn.SetWriteDeadline(c.opened.Add(time.Duration(c.began.Load()) + c.of.grace + behind))
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
// sendfile ends in the middle of a segment when the socket's buffer is full; without the cork, that rest
// leaves by itself. This made a download of 1 GiB as fast as nginx's with tcp_nopush; before it ran at 0.72
// of that.
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
			break // the file is shorter than r said
		}
	}
	return sent, err
}

// cork may fail without harm: it decides when segments leave, not whether.
func (c *limitedConn) cork(on int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on)
		})
	}
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.of.give(c)
	}
	return c.TCPConn.Close()
}

// abort closes the connection and drops unsent data. The server's goroutine sees the end and removes the
// connection from the count.
func (c *limitedConn) abort() {
	_ = c.TCPConn.SetLinger(0)
	_ = c.TCPConn.Close()
}
