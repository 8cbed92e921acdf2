package ipmi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/power"
)

const busyTries = 5

// A Driver opens BMCs. While somebody has a target open, it remembers of it what makes the next conversation
// shorter, such as the cipher suite that worked. The zero value is ready. Set the fields before first use.
type Driver struct {
	Interval time.Duration // least time between two conversations with one BMC; 0 is none
	Timeout  time.Duration // 700 ms unless set: for one answer; a command is sent three times at most
	Backoff  time.Duration // 500 ms unless set: first wait when a BMC says that it is busy
	Log      *slog.Logger  // nil: nothing is logged

	dial func(context.Context, netip.AddrPort) (net.Conn, error) // opens a UDP socket, except in tests

	refused refusals

	mu      sync.Mutex
	targets map[netip.AddrPort]weak.Pointer[target] // each is dropped with its last controller
}

// target is what is remembered of one BMC. turn guards the other fields, but not console.
type target struct {
	turn  chan struct{}
	suite types.CipherSuiteID // that worked last; 0 is none
	last  time.Time           // end of the last conversation

	console atomic.Uint32 // privilege level of the last console; 0 is none
}

var shared Driver

// Open makes the BMC of a target, with default timing. It satisfies power.Opener.
func Open(t power.Target) (power.BMC, error) { return shared.Open(t) }

// Open makes the BMC of a target and sends nothing. The result is also a power.Console.
func (d *Driver) Open(t power.Target) (power.BMC, error) {
	addr, err := power.ParseAddress(t.Address)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(power.CheckUser(t.User), power.CheckPassword(t.Password),
		power.CheckKg(t.Kg)); err != nil {
		return nil, fmt.Errorf("BMC %s: %w", addr, err)
	}
	return &controller{
		driver: d, target: d.target(addr), addr: addr, user: t.User, password: t.Password,
		kg: t.Kg,
	}, nil
}

// target returns the target of an address, which all controllers of that address share. BMCs are never
// closed, so the garbage collector says when the last controller is gone.
func (d *Driver) target(addr netip.AddrPort) *target {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.targets[addr].Value(); known != nil {
		return known
	}
	if d.targets == nil {
		d.targets = make(map[netip.AddrPort]weak.Pointer[target])
	}
	fresh := &target{turn: make(chan struct{}, 1)}
	d.targets[addr] = weak.Make(fresh)
	runtime.AddCleanup(fresh, d.forget, addr)
	return fresh
}

// forget drops a target that nobody has open, unless there is a new one of the same address.
func (d *Driver) forget(addr netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.targets[addr].Value() == nil {
		delete(d.targets, addr)
	}
}

type controller struct {
	driver         *Driver
	target         *target
	addr           netip.AddrPort
	user, password string
	kg             string
}

func (c *controller) String() string { return c.user + "@" + c.addr.String() }

// GoString keeps %#v from printing the password.
func (c *controller) GoString() string { return "ipmi.controller{" + c.String() + "}" }

func (d *Driver) timeout() time.Duration { return cmp.Or(d.Timeout, 700*time.Millisecond) }
func (d *Driver) backoff() time.Duration { return cmp.Or(d.Backoff, 500*time.Millisecond) }

func (d *Driver) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}

// talk has one conversation: it waits for its turn, opens a session, lets f use it, and closes it. When
// the BMC is busy, all of it is done again. The error is a *power.Error.
func (c *controller) talk(
	ctx context.Context, doing string, f func(context.Context, *client.Client) error,
) (err error) {
	defer bug.Return(c.driver.log(), doing+" "+c.addr.String(), &err)
	select {
	case c.target.turn <- struct{}{}:
		defer func() { <-c.target.turn }()
	case <-ctx.Done():
		return c.fail(doing, ctx.Err())
	}
	start := time.Now()
	for try := range busyTries {
		wait := time.Until(c.target.last.Add(c.driver.Interval))
		if try > 0 {
			wait = max(wait, c.driver.backoff()<<(try-1))
		}
		if ended := sleep.For(ctx, wait); ended != nil {
			if err != nil {
				ended = fmt.Errorf("%w (before that: %w)", ended, err)
			}
			err = ended
			break
		}
		err = c.once(ctx, f)
		c.target.last = time.Now()
		if !later(err) {
			break
		}
	}
	c.driver.log().Debug("bmc", "target", c.addr, "doing", doing,
		"took", time.Since(start).Round(time.Millisecond), "error", err)
	if err != nil {
		return c.fail(doing, err)
	}
	return nil
}

func (c *controller) once(ctx context.Context, f func(context.Context, *client.Client) error) error {
	// Chassis Control and the boot options need the level Operator. Nothing that we send needs Administrator
	// (appendix G).
	session, err := c.connect(ctx, types.PrivilegeLevelOperator, 2)
	if err != nil {
		return err
	}
	defer c.hangUp(ctx, session)
	return explain(ctx, f(ctx, session))
}
