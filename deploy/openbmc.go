package deploy

import (
	"context"
	"fmt"
	"sync"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// openedBMC is a machine's BMC as it was opened last. It is forgotten when the machine is deleted, or when
// the BMC's address or credentials change. They are compared as they are stored, with the password sealed.
type openedBMC struct {
	mu  sync.Mutex
	how string // what reached returned
	bmc power.BMC

	left chan struct{} // closed when the BMC is forgotten; nil while nobody waits for that
}

// forget drops the BMC, and the password that it holds.
func (o *openedBMC) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.how, o.bmc = "", nil
	if o.left != nil {
		close(o.left)
		o.left = nil
	}
}

// leaves returns a channel that is closed when the BMC is forgotten.
func (o *openedBMC) leaves() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left == nil {
		o.left = make(chan struct{})
	}
	return o.left
}

// while returns a context that ends when the machine is deleted, when the appliance stops, or when the
// machine's BMC has another address or other credentials than m's. Its cause is then an error for operators;
// in the last case, the one given as replaced.
func (w *worker) while(
	ctx context.Context, m inventory.Machine, replaced error,
) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		defer bug.Recover(w.log(), "wait for the end of a BMC")
		for {
			left := w.opened.leaves()
			if reached(w.snap.Load().m.BMC) != reached(m.BMC) {
				cancel(replaced)
				return
			}
			select {
			case <-left: // the worker has ended, or the BMC was changed and perhaps changed back
			case <-w.gone:
				cancel(errGone(w))
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// bmc returns the machine's BMC, and opens it first when needed. All callers share one, and take turns.
func (w *worker) bmc(m inventory.Machine) (power.BMC, error) {
	if err := askable(m); err != nil {
		return nil, err
	}
	how := reached(m.BMC)
	w.opened.mu.Lock()
	defer w.opened.mu.Unlock()
	if w.opened.bmc != nil && w.opened.how == how {
		return w.recorded(w.opened.bmc), nil
	}
	target := power.Target{Address: m.BMC.Address, User: m.BMC.User, Password: w.e.cfg.BMC.Password}
	if target.User == "" {
		target.User = w.e.cfg.BMC.User
	}
	if len(m.BMC.Password) > 0 {
		plain, err := w.e.cfg.Unseal(m.BMC.Password)
		if err != nil {
			return nil, fmt.Errorf("%s: unseal the BMC password: %w", m.Name, err)
		}
		target.Password = string(plain)
	}
	if len(m.BMC.Kg) > 0 {
		plain, err := w.e.cfg.Unseal(m.BMC.Kg)
		if err != nil {
			return nil, fmt.Errorf("%s: unseal the BMC's key: %w", m.Name, err)
		}
		target.Kg = string(plain)
	}
	b, err := w.e.cfg.OpenBMC(target)
	if err != nil {
		return nil, &inventory.Problem{
			Code:   inventory.CodeInvalid,
			Detail: fmt.Sprintf("%s: BMC: %v", m.Name, err),
			Hint:   "correct it with `pxectl machine edit " + m.Name + " --bmc IP`",
			Err:    err,
		}
	}
	w.opened.how, w.opened.bmc = how, power.Serialize(b)
	return w.recorded(w.opened.bmc), nil
}
