package deploy

import (
	"fmt"
	"sync"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// openedBMC is a machine's BMC as it was opened last. It goes with the machine, and with the address and
// credentials that it was opened with: those are told apart as they are stored, where the password is sealed.
type openedBMC struct {
	mu  sync.Mutex
	how string // reached
	bmc power.BMC
}

// forget lets go of the BMC, and of the password that it holds.
func (o *openedBMC) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.how, o.bmc = "", nil
}

// bmc opens the machine's BMC. All callers share one, and take turns.
func (w *worker) bmc(m inventory.Machine) (power.BMC, error) {
	if err := MayPower(m); err != nil {
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
		return nil, &inventory.Problem{Code: inventory.CodeInvalid, Detail: fmt.Sprintf("%s: BMC: %v", m.Name, err), Hint: "correct it with `pxectl machine edit " + m.Name + " --bmc IP`", Err: err}
	}
	w.opened.how, w.opened.bmc = how, power.Serialize(b)
	return w.recorded(w.opened.bmc), nil
}
