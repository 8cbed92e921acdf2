package ipmi

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi/lan"
)

// suites in the order in which they are tried: HMAC-SHA256 with AES, then HMAC-SHA1 with AES, which every
// IPMI 2.0 BMC must have (section 22.15.2). The others lack integrity or encryption, or nobody has them.
var suites = []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3}

// connect opens a session. The caller has the target's turn. Each suite gets a client of its own: a client
// serves one session only, and a late answer to one try must not be taken for an answer to the next.
func (c *controller) connect(
	ctx context.Context, level types.PrivilegeLevel, retries int,
) (*client.Client, error) {
	if err := c.driver.refused.mayTry(c); err != nil {
		return nil, err
	}
	order := suites
	if c.target.suite == types.CipherSuiteID3 {
		order = []types.CipherSuiteID{types.CipherSuiteID3, types.CipherSuiteID17}
	}
	var err error
	for _, suite := range order {
		var session *client.Client
		session, err = c.dial(ctx, suite, level, retries)
		if errors.Is(err, power.ErrRefused) {
			// Try once more: on a busy BMC, a late answer to a repeated login message makes the login fail
			// just as a wrong password does, and ErrRefused ends deployments.
			if c.driver.refused.remember(c); c.driver.refused.mayTry(c) == nil {
				session, err = c.dial(ctx, suite, level, retries)
			}
			if errors.Is(err, power.ErrRefused) {
				c.driver.refused.remember(c)
				return nil, err
			}
		}
		if err == nil {
			c.target.suite = suite
			c.driver.refused.accepted(c)
			return session, nil
		}
		if !errors.Is(err, errSuite) {
			return nil, err
		}
	}
	c.target.suite = 0
	return nil, err
}

// dial logs in. It takes the steps of the library one by one and does not call its Connect. Connect drops the
// kind of an error, and leaves a goroutine behind that sends to the BMC in the middle of other exchanges,
// which the library cannot handle.
func (c *controller) dial(
	ctx context.Context, suite types.CipherSuiteID, level types.PrivilegeLevel, retries int,
) (*client.Client, error) {
	// The library makes the session's keys of the password. It gets K_g in its place, where there is one (see
	// lan.Secrets).
	session, err := client.NewClient(c.addr.Addr().String(), int(c.addr.Port()), c.user,
		cmp.Or(c.kg, c.password))
	if err != nil {
		return nil, err
	}
	socket, err := c.driver.socket(ctx, c.addr)
	if err != nil {
		return nil, opening(ctx, "", err)
	}
	conn := lan.New(ctx, socket, lan.Secrets{Password: c.password, Kg: c.kg}, c.driver.log())
	if err := conn.Ask(ctx, level, c.driver.timeout(), retries+1); err != nil {
		_ = conn.Close()
		err = opening(ctx, "", err)
		if errors.Is(err, power.ErrSilent) && c.driver.dial == nil {
			if other, ok := lan.Elsewhere(ctx, c.addr, level, c.driver.timeout(), c.driver.log()); ok {
				return nil, &elsewhereError{err, other}
			}
		}
		return nil, err
	}
	session.WithUDPProxy(given{conn}).
		WithTimeout(c.driver.timeout()).
		WithRetry(retries).
		WithCipherSuiteID(suite).
		WithMaxPrivilegeLevel(level)
	doing, err := login(ctx, session, level)
	if err == nil {
		return session, nil
	}
	if _, half := types.IsResponseError(err); half { // the session is open, but may not do what we need
		c.hangUp(ctx, session)
	} else { // there is no session to close: only the socket is closed
		over, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel()
		_ = session.Close(over)
		_ = conn.Close() // the library does not know conn before its first message
	}
	return nil, opening(ctx, doing, err)
}

// An elsewhereError says that a BMC was silent, and that an answer came from another address.
type elsewhereError struct {
	error
	from netip.AddrPort
}

func (e *elsewhereError) Error() string {
	return e.error.Error() + "; an answer comes from " + e.from.String() + ", which was not asked"
}
func (e *elsewhereError) Unwrap() error { return e.error }

// Steps of a login in which silence has a meaning of its own.
const (
	doingOpen  = "Open Session"
	doingLogin = "RAKP"
)

// login opens a session (section 13.15) and says at which step it failed.
func login(
	ctx context.Context, session *client.Client, level types.PrivilegeLevel,
) (doing string, err error) {
	if _, err = session.OpenSession(ctx); err != nil {
		return doingOpen, err
	}
	if _, err = session.RAKPMessage1(ctx); err != nil {
		return doingLogin, err
	}
	if _, err = session.RAKPMessage3(ctx); err != nil {
		return doingLogin, err
	}
	_, err = session.SetSessionPrivilegeLevel(ctx, level)
	return "", err
}

// given hands the library a connection that is open already. To the library it is a proxy that dials.
type given struct{ conn net.Conn }

func (g given) Dial(string, string) (net.Conn, error) { return g.conn, nil }

func (d *Driver) socket(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	if d.dial != nil {
		return d.dial(ctx, addr)
	}
	var udp net.Dialer
	return udp.DialContext(ctx, "udp", addr.String())
}

// hangUp closes a session. It has a timeout of its own, because ctx may be over, and a session that is not
// closed holds one of the BMC's few slots until it times out.
func (c *controller) hangUp(ctx context.Context, session *client.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.driver.timeout())
	defer cancel()
	if err := session.Close(ctx); err != nil {
		c.driver.log().Debug("bmc: close session", "target", c.addr, "error", oneLine(err))
	}
}
