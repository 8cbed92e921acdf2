package deploy

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A broken BMC makes its driver panic.
type brokenBMC struct{ power.BMC }

func (brokenBMC) Power(context.Context) (bool, error) { panic("slice bounds out of range") }

// A panic in a driver fails the step or the call that used it. The engine and the machine's worker go on.
func TestADriverThatPanics(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	var broken atomic.Bool
	r.open = func(power.Target) (power.BMC, error) { return maybe{r.bmc, brokenBMC{r.bmc}, &broken}, nil }
	r.available()
	broken.Store(true)
	r.deploy(inventory.DeployRequest{})
	m := r.until(inventory.Failed)
	if m.Failure.Step != string(inventory.Validate) || !strings.Contains(m.Failure.Reason, "a bug of ours") {
		t.Errorf("the failure is %+v, want that of validate, by a bug", m.Failure)
	}
	broken.Store(false)
	r.retried("m1")
	r.until(inventory.Deployed)
}

type maybe struct {
	power.BMC
	other power.BMC
	on    *atomic.Bool
}

func (m maybe) Power(ctx context.Context) (bool, error) {
	if m.on.Load() {
		return m.other.Power(ctx)
	}
	return m.BMC.Power(ctx)
}

// A call that makes the worker panic returns an error, and does not hang.
func TestACallOverWhichAWorkerPanics(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(t.Context(), w, func() (int, error) { panic("nil map") }); err == nil ||
		!strings.Contains(err.Error(), "nil map") {
		t.Errorf("call of what panics: %v, want the panic as an error", err)
	}
	if n, err := call(t.Context(), w, func() (int, error) { return 7, nil }); n != 7 || err != nil {
		t.Errorf("the next call: %d, %v, want 7", n, err)
	}
}
