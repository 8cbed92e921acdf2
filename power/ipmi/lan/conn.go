package lan

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/bougou/go-ipmi/pkg/crypto"

	"github.com/pxectl/pxectl/internal/bug"
)

const (
	// maxDatagram is what the library reads at once. A datagram of a BMC is shorter, because it fits an
	// Ethernet frame; one of this length is dropped.
	maxDatagram = 4096

	// grace is how long the true answer is awaited after one that does not verify or would end the
	// login.
	grace = 100 * time.Millisecond

	// maxAnswers is how many datagrams of the BMC are let through for one message of ours. The library keeps
	// console output in memory until its request is answered.
	maxAnswers = 64
)

// A Conn is the connection of one login and the session that follows. It serves one exchange at a time, as
// go-ipmi does.
type Conn struct {
	net.Conn
	log  *slog.Logger
	stop func() bool // ends the wait for the end of ctx

	mu       sync.Mutex
	deadline time.Time // of Read
	answers  int       // let through since the last Write
	dropped  int       // datagrams, for the log
	login    login
	session  *session // nil until RAKP 4 was believed
}

// Secrets are what the remote console, which is this driver, and the BMC both know.
type Secrets struct {
	Password string // of the user
	// Kg is the BMC's own key, "" for none. With it a login has two keys (section 13.33): RAKP 2 and 3 are
	// signed with the password, and the session's keys are made of K_g. The library knows only one key, and
	// gets K_g as its password then. So the codes that it checks in RAKP 2 and sends in RAKP 3 are of the
	// wrong key, and are replaced here.
	Kg string
}

// sessionKey returns the key that the session's keys are made of.
func (s Secrets) sessionKey() []byte {
	if s.Kg != "" {
		return crypto.PadPassword20([]byte(s.Kg))
	}
	return crypto.PadPassword20([]byte(s.Password))
}

// New makes a Conn of a connection on which each Read and Write is a datagram. The end of ctx ends a Read
// that waits. Otherwise the library would hold its lock until that Read times out, and the session could not
// be closed meanwhile.
func New(ctx context.Context, conn net.Conn, secrets Secrets, log *slog.Logger) *Conn {
	c := &Conn{Conn: conn, log: log}
	c.stop = context.AfterFunc(ctx, func() {
		defer bug.Recover(log, "end a wait for a BMC")
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	c.login.Secrets = secrets
	var random [5]byte
	_, _ = rand.Read(random[:]) // never fails
	c.login.tag = random[4]
	c.login.consoleID = max(1, binary.LittleEndian.Uint32(random[:]))
	return c
}

// Close closes the socket, and logs how many packets were dropped. They may come from a BMC that does not
// follow the specification, or from an attacker.
func (c *Conn) Close() error {
	c.stop()
	c.mu.Lock()
	dropped := c.dropped
	c.dropped = 0
	c.mu.Unlock()
	if dropped > 0 && c.log != nil {
		c.log.Info("bmc: packets were not believed", "target", c.RemoteAddr(), "packets", dropped)
	}
	return c.Conn.Close()
}

// SetReadDeadline bounds Read, as net.Conn's does.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// Write sends a message of the library. Those of the login get random tags and a random session id, which an
// attacker does not know.
func (c *Conn) Write(p []byte) (n int, err error) {
	defer bug.Return(c.log, "send to the BMC", &err)
	out, err := c.prepare(p)
	if err != nil {
		return 0, err
	}
	if _, err = c.Conn.Write(out); errors.Is(err, syscall.ECONNREFUSED) && c.active() {
		// The error is of an ICMP message that came before. Anybody can send one, and the BMC may be back.
		_, err = c.Conn.Write(out)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// prepare returns what is sent in place of p. It does not change p, because the library sends p again when no
// answer comes.
func (c *Conn) prepare(p []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = 0
	if len(p) < rmcpSize+headerSize {
		return nil, fmt.Errorf("send to the BMC: %d bytes are no message", len(p))
	}
	out := slices.Clone(p)
	if c.session != nil {
		return out, c.session.encryptAnew(out[rmcpSize:])
	}
	if out[rmcpSize] == authNone {
		c.login.ask(out[rmcpSize:])
		return out, nil
	}
	return out, c.login.send(out[rmcpSize:])
}

// Read returns the next datagram that is from the BMC and that the library can read. Its error is that of the
// deadline or of the socket, or says why the login is over.
func (c *Conn) Read(p []byte) (n int, err error) {
	defer bug.Return(c.log, "read what the BMC sent", &err)
	var refused error
	buf := make([]byte, maxDatagram)
	for {
		n, err := c.Conn.Read(buf)
		if err != nil {
			switch {
			case refused != nil && errors.Is(err, os.ErrDeadlineExceeded):
				return 0, refused
			case errors.Is(err, syscall.ECONNREFUSED) && c.active():
				continue
			}
			return 0, err
		}
		v := c.judge(buf[:n])
		switch {
		case v.ok:
			return copy(p, buf[:n]), nil
		case v.refused == nil:
			c.drop()
		case refused == nil:
			refused = v.refused
			if err := c.Conn.SetReadDeadline(c.soon()); err != nil {
				return 0, err
			}
		}
	}
}

func (c *Conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
}

// soon returns the end of the wait for a better answer: grace from now, or the deadline of Read when that is
// earlier.
func (c *Conn) soon() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now().Add(grace)
	if !c.deadline.IsZero() && c.deadline.Before(t) {
		return c.deadline
	}
	return t
}

func (c *Conn) active() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil
}

// A verdict says what happens with a datagram. The zero value drops it.
type verdict struct {
	ok      bool  // the library gets it
	refused error // it ends the login, unless a better one follows
}

// RMCP header, section 13.1.3: version 1.0, and a normal message of class IPMI.
const (
	rmcpSize    = 4
	rmcpVersion = 0x06
	rmcpIPMI    = 0x07
)

func (c *Conn) judge(d []byte) verdict {
	if len(d) <= rmcpSize || len(d) == maxDatagram || d[0] != rmcpVersion || d[3] != rmcpIPMI {
		return verdict{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers >= maxAnswers {
		return verdict{}
	}
	v := verdict{}
	if c.session != nil {
		v.ok = c.session.genuine(d[rmcpSize:])
	} else if v = c.login.answer(d[rmcpSize:]); v.ok && c.login.done {
		c.session = c.login.session()
	}
	if v.ok {
		c.answers++
	}
	return v
}
