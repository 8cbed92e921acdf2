package ipmi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/transport"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/power"
)

// Activate Payload (section 24.1): completion codes, and the instance that every BMC has.
const (
	codePayloadActive   = 0x80
	codePayloadDisabled = 0x81
	codePayloadLimit    = 0x82
	codePrivilege       = 0xD4 // of every command

	solInstance = 1
)

const doingConsole = "serial console of"

// attaching says how a console is attached.
type attaching struct {
	takeOver bool          // from another session
	retries  int           // of the login, which holds up commands to the BMC
	poll     time.Duration // how long output of the machine may wait at the BMC
}

// consoleRetries is more than the retries of a command: when power changes, a BMC that shares a NIC is silent
// for a while.
const consoleRetries = 9

// Console attaches to the serial console over SOL. It takes over a console that another session holds: a BMC
// has one, and the holder is most often a session that was never closed. A Read of in may still wait for a
// byte after Console has returned, as with every io.Reader.
func (c *controller) Console(ctx context.Context, in io.Reader, out io.Writer) error {
	return c.attach(ctx, in, out, attaching{
		takeOver: true, retries: consoleRetries, poll: 50 * time.Millisecond,
	})
}

// Listen reads the serial console and sends no keys. It takes the console from no other session, and any
// other may take it over. It polls less often than Console, because nobody waits for the output.
func (c *controller) Listen(ctx context.Context, out io.Writer) error {
	over, cancel := context.WithCancel(ctx)
	defer cancel() // ends noKeys.Read
	return c.attach(ctx, noKeys{over}, out, attaching{retries: 2, poll: 150 * time.Millisecond})
}

// noKeys is an io.Reader that gives no bytes and ends with its ctx.
type noKeys struct{ ctx context.Context }

func (k noKeys) Read([]byte) (int, error) {
	<-k.ctx.Done()
	return 0, k.ctx.Err()
}

func (c *controller) attach(ctx context.Context, in io.Reader, out io.Writer, how attaching) (err error) {
	defer bug.Return(c.driver.log(), doingConsole+" "+c.addr.String(), &err)
	session, err := c.openConsole(ctx, how)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return c.fail(doingConsole, err)
	}
	defer c.hangUp(ctx, session)

	session.WithRetry(consoleRetries)
	err = session.SOLStream(ctx, in, out, &client.SOLStreamOptions{PollInterval: how.poll})
	if err != nil && ctx.Err() == nil {
		// Do not deactivate the payload: it may be another session's by now. If it is still ours, it ends
		// with the session (section 24.2).
		return c.fail(doingConsole, fmt.Errorf("the BMC hung up: %s", oneLine(err)))
	}
	_ = c.deactivate(ctx, session)
	return nil
}

// levels are the privilege levels with which a console is asked for, the lowest first. The level that SOL
// needs is configurable, and Administrator on many BMCs (section 26.3, parameter 2), but most give the
// console to an Operator, and some to a User.
var levels = []types.PrivilegeLevel{
	types.PrivilegeLevelUser, types.PrivilegeLevelOperator, types.PrivilegeLevelAdministrator,
}

// openConsole opens a session and its console with the lowest privilege level that the BMC accepts. It
// remembers that level, and the next console begins with it.
func (c *controller) openConsole(ctx context.Context, how attaching) (*client.Client, error) {
	begin := max(0, slices.Index(levels, types.PrivilegeLevel(c.target.console.Load())))
	var first error // the first one that is not about privilege, else the last one
	for _, level := range slices.Concat(levels[begin:], levels[:begin]) {
		session, err := c.dialConsole(ctx, level, how)
		if err == nil {
			c.target.console.Store(uint32(level))
			return session, nil
		}
		if errors.Is(err, errSuite) ||
			!errors.Is(err, power.ErrPrivilege) && !errors.Is(err, power.ErrUnsupported) {
			return nil, err
		}
		if first == nil || errors.Is(first, power.ErrPrivilege) {
			first = err
		}
		c.driver.log().Info("bmc: no console with this privilege level", "target", c.addr, "level", level,
			"reason", oneLine(err))
	}
	return nil, first
}

// dialConsole opens a session and its console at that level. It holds the target's turn for the login only,
// so that commands go on while the console is open.
func (c *controller) dialConsole(
	ctx context.Context, level types.PrivilegeLevel, how attaching,
) (*client.Client, error) {
	login := func() (*client.Client, error) {
		select {
		case c.target.turn <- struct{}{}:
			defer func() { <-c.target.turn }()
			return c.connect(ctx, level, how.retries)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	session, err := login()
	if err != nil {
		return nil, err
	}
	if err := c.activate(ctx, session, how.takeOver); err != nil {
		c.hangUp(ctx, session)
		return nil, err
	}
	return session, nil
}

func (c *controller) activate(ctx context.Context, session *client.Client, takeOver bool) error {
	request := &transport.ActivatePayloadRequest{
		PayloadType: types.PayloadTypeSOL, PayloadInstance: solInstance,
		EnableEncryption: true, EnableAuthentication: true,
	}
	for again := range 2 {
		_, err := session.ActivatePayload(ctx, request)
		if err == nil {
			return nil
		}
		code, answered := types.IsResponseError(err)
		if !answered {
			return explain(ctx, err)
		}
		switch code.CompletionCode() {
		case codePayloadActive, codePayloadLimit:
			if !takeOver {
				return power.ErrTaken
			}
			if again > 0 {
				return errors.New("in use by another session, and the BMC does not let go of it")
			}
			c.driver.log().Info("bmc: the serial console is in use by another session; taking it over",
				"target", c.addr)
			if code, answered := types.IsResponseError(c.deactivate(ctx, session)); answered &&
				code.CompletionCode() == codePrivilege {
				return completion(codePrivilege) // ending another session's console needs a higher level
			}
		case codePayloadDisabled:
			return fmt.Errorf("serial over LAN is switched off: %w", power.ErrUnsupported)
		default:
			return completion(code.CompletionCode())
		}
	}
	return nil
}

// deactivate ends the console. Like hangUp, it has a timeout of its own, because ctx may be over.
func (c *controller) deactivate(ctx context.Context, session *client.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.driver.timeout())
	defer cancel()
	_, err := session.DeactivatePayload(ctx, &transport.DeactivatePayloadRequest{
		PayloadType: types.PayloadTypeSOL, PayloadInstance: solInstance,
	})
	if err != nil {
		c.driver.log().Debug("bmc: deactivate console", "target", c.addr, "error", oneLine(err))
	}
	return err
}
