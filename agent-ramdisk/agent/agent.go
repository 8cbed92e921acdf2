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
	Registered   func() // called after registration: slow work can start now
	// Settle waits until drivers are loaded and no more disks appear.
	Settle func(context.Context)
	Report func() *inventory.Report
	Disks  func() ([]inventory.Disk, error)
	Dev    string // "/dev"
	EFI    string // "/sys/firmware/efi"; missing on a machine that was started by BIOS
	// MountESP mounts an EFI system partition. It returns the directory and the function that unmounts it.
	MountESP func(disk string, number int) (dir string, unmount func() error, err error)
	// DiskWait is how long an order's disk may take to appear: a RAID controller or an expander can be slow.
	DiskWait time.Duration
	// Restart ends the kernel: "reboot" or "poweroff". It returns only after a failure.
	Restart func(how string) error
	// Backoff is the first wait after a failed call, doubled up to 10 s; 0 is 500 ms.
	Backoff time.Duration

	mu      sync.Mutex                  // several disks are erased at once
	results map[string]inventory.Result // of this boot, by order, so that no order is done twice
	zeros   map[string]bool             // names of disks that read zeros
	cleared map[string][][16]byte       // by disk: its partitions before it was cleared, as in boot entries
}

// phases are those of a machine's way to a new system, which the console counts.
var phases = []string{
	"network", "register", "drivers", inventory.DoInspect, inventory.DoPrepareDisk, inventory.DoWriteImage,
	inventory.DoFinishDisk, "restart",
}

// Phase logs the start of a phase, and returns the function that logs its end.
func Phase(log *slog.Logger, name string) func(error) {
	number := 0
	for i, p := range phases {
		if p == name {
			number = i + 1
		}
	}
	label := fmt.Sprintf("phase %s (%d/%d)", name, number, len(phases))
	if number == 0 {
		label = "phase " + name // not counted, such as an erase
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

// Run registers and carries out orders until ctx ends, the nonce dies (ErrNonce) or the machine restarts.
func (a *Agent) Run(ctx context.Context) error {
	a.results, a.zeros, a.cleared = map[string]inventory.Result{}, map[string]bool{}, map[string][][16]byte{}
	done := Phase(a.Log, "register")
	var me inventory.Registered
	err := a.retry(ctx, "register", func() (err error) {
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
	a.Log.Info(fmt.Sprintf("registered as %s (%s); waiting for orders; press Enter for a shell", me.Name,
		me.Machine))
	for {
		var order inventory.Order
		asked := time.Now()
		err := a.retry(ctx, "ask for orders", func() (err error) {
			order, err = a.Client.next(ctx, a.Registration.BootID)
			return err
		})
		if err != nil {
			return err
		}
		if order.Do == inventory.DoWait || order.ID == "" {
			// Do not ask a thousand times a second when the appliance answers at once.
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
	err := a.retry(ctx, "report the result of "+order.Do, func() error {
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

// perform carries out an order and reports the result.
func (a *Agent) perform(ctx context.Context, order inventory.Order) inventory.Result {
	if order.Do == inventory.DoReboot || order.Do == inventory.DoPowerOff {
		// Send the result first: after the restart nobody can.
		return inventory.Result{BootID: a.Registration.BootID}
	}
	return a.attempt(order.Do, func(result *inventory.Result) error { return a.execute(ctx, order, result) })
}

// attempt calls work and turns a panic into an error: a dead agent reports nothing.
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
		var h *hintError
		if errors.As(err, &h) {
			result.Hint = h.hint
		}
	}
	return result
}

// hintError is an error with the next move.
type hintError struct {
	error
	hint string
}

func (h *hintError) Unwrap() error { return h.error }

// retry repeats a call until it is answered. It gives up when the nonce is dead, the order is gone, or ctx
// ends.
func (a *Agent) retry(ctx context.Context, what string, call func() error) error {
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
