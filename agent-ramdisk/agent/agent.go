package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pxectl/pxectl/internal/backoff"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// An Agent serves one boot of one machine.
type Agent struct {
	Client  *Client
	Console *Console
	Log     *slog.Logger

	Registration inventory.Registration // Uptime is filled in
	Uptime       func() time.Duration
	SetClock     func(time.Time) error
	Registered   func() // called once the appliance knows us: what is slow can start now
	// Settle waits until drivers are loaded and the disks that they found have shown up.
	Settle func(context.Context)
	Report func() *inventory.Report
	Disks  func() ([]inventory.Disk, error)
	Dev    string // "/dev"
	EFI    string // "/sys/firmware/efi"; it is not there on a machine that started by BIOS
	// MountESP mounts an EFI system partition, and returns where, and what takes it off again.
	MountESP func(disk string, number int) (dir string, unmount func() error, err error)
	// DiskWait is how long an order's disk may take to show up: a RAID controller or an expander can be slow.
	DiskWait time.Duration
	// Restart ends the kernel: "reboot" or "poweroff". It returns only when that was impossible.
	Restart func(how string) error
	// Backoff is the first wait after a failed call, doubled up to 10 s; 0 is 500 ms.
	Backoff time.Duration

	mu      sync.Mutex                  // disks are erased side by side
	results map[string]inventory.Result // of this boot, by order: doing an order twice is work for nothing
	zeros   map[string]bool             // disks, by name, that are known to read zeros
	were    map[string][][16]byte       // partitions, as boot entries name them, that were on a disk before it was cleared
}

// phases of a machine's way to a new system, as a person sees them counted on the console.
var phases = []string{"network", "register", "drivers", inventory.DoInspect, inventory.DoPrepareDisk, inventory.DoWriteImage, inventory.DoFinishDisk, "restart"}

// Phase tells the console that a phase starts, and returns the function that tells its end.
func Phase(log *slog.Logger, name string) func(error) {
	number := 0
	for i, p := range phases {
		if p == name {
			number = i + 1
		}
	}
	label := fmt.Sprintf("phase %s (%d/%d)", name, number, len(phases))
	if number == 0 {
		label = "phase " + name // of no deployment: an erase
	}
	log.Info(label + ": started")
	start := time.Now()
	return func(err error) {
		took := time.Since(start)
		if took < 10*time.Second {
			took = took.Round(100 * time.Millisecond)
		} else {
			took = took.Round(time.Second)
		}
		if err != nil {
			log.Error(fmt.Sprintf("%s: failed after %s: %v", label, took, err))
			return
		}
		log.Info(fmt.Sprintf("%s: done, %s", label, took))
	}
}

// Run registers and does what it is told until ctx ends, the nonce dies (ErrNonce) or
// the machine restarts.
func (a *Agent) Run(ctx context.Context) error {
	a.results, a.zeros, a.were = map[string]inventory.Result{}, map[string]bool{}, map[string][][16]byte{}
	done := Phase(a.Log, "register")
	var me inventory.Registered
	err := a.insist(ctx, "register", func() (err error) {
		r := a.Registration
		r.Uptime = a.Uptime().Milliseconds()
		me, err = a.Client.register(ctx, r)
		return err
	})
	done(err)
	if err != nil {
		return err
	}
	if err := a.SetClock(me.Time); err != nil {
		a.Log.Warn("set the clock", "err", err)
	}
	a.Registered()
	a.Log.Info(fmt.Sprintf("registered as %s (%s); waiting for orders; press Enter for a shell", me.Name, me.Machine))
	for {
		var order inventory.Order
		asked := time.Now()
		err := a.insist(ctx, "ask for orders", func() (err error) {
			order, err = a.Client.next(ctx, a.Registration.BootID)
			return err
		})
		if err != nil {
			return err
		}
		if order.Do == inventory.DoWait || order.ID == "" {
			// An appliance that does not hold the call must not be asked a thousand times a second.
			if err := sleep.For(ctx, a.backoff()-time.Since(asked)); err != nil {
				return err
			}
			continue
		}
		if err := a.obey(ctx, order); err != nil {
			return err
		}
	}
}

func (a *Agent) obey(ctx context.Context, order inventory.Order) error {
	if order.Do == inventory.DoErase {
		return a.eraseDisks(ctx, order)
	}
	result, again := a.results[order.ID]
	if again {
		a.Log.Info("order repeated, its result is known", "id", order.ID, "do", order.Do)
	} else {
		result = a.perform(ctx, order)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.results[order.ID] = result
	}
	err := a.insist(ctx, "report the result of "+order.Do, func() error {
		return a.Client.result(ctx, order.ID, result)
	})
	switch {
	case errors.Is(err, errGone):
		a.Log.Warn("result not wanted", "id", order.ID, "err", err)
		return nil
	case err != nil:
		return err
	case result.Error == "" && (order.Do == inventory.DoReboot || order.Do == inventory.DoPowerOff):
		Phase(a.Log, "restart")
		if err := a.Restart(order.Do); err != nil {
			a.Log.Error("restart", "how", order.Do, "err", err)
		}
	}
	return nil
}

// perform does an order.
func (a *Agent) perform(ctx context.Context, order inventory.Order) inventory.Result {
	if order.Do == inventory.DoReboot || order.Do == inventory.DoPowerOff {
		return inventory.Result{BootID: a.Registration.BootID} // the result first: nobody hears us afterwards
	}
	return a.attempt(order.Do, func(result *inventory.Result) error { return a.carryOut(ctx, order, result) })
}

// attempt does work and never panics: an agent that is gone can tell nobody why.
func (a *Agent) attempt(what string, work func(*inventory.Result) error) (result inventory.Result) {
	done := Phase(a.Log, what)
	defer func() {
		if p := recover(); p != nil {
			a.Log.Error("panic", "in", what, "value", p, "stack", string(debug.Stack()))
			result = inventory.Result{Error: fmt.Sprintf("%s: the agent met a bug: %v", what, p)}
			done(errors.New(result.Error))
		}
		result.BootID = a.Registration.BootID
		if result.Error != "" {
			result.Log = a.Console.Tail()
		}
	}()
	err := work(&result)
	done(err)
	if err != nil {
		result.Error = err.Error()
		var h *hinted
		if errors.As(err, &h) {
			result.Hint = h.hint
		}
	}
	return result
}

// hinted is an error with the next move.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// insist repeats a call until it is answered. It gives up when the nonce is dead, the order gone, or ctx
// over.
func (a *Agent) insist(ctx context.Context, what string, call func() error) error {
	wait := backoff.Backoff{First: a.backoff(), Most: 10 * time.Second}
	for {
		err := call()
		switch {
		case err == nil, errors.Is(err, ErrNonce):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errGone) && what != "register" && what != "ask for orders":
			return err
		}
		a.Log.Warn(what+", will try again", "err", err)
		if err := sleep.For(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

func (a *Agent) backoff() time.Duration {
	if a.Backoff > 0 {
		return a.Backoff
	}
	return 500 * time.Millisecond
}
