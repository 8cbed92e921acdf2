package deploy

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// held is a BMC that never answers.
type held struct{ power.BMC }

func (held) Power(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }

func (held) Listen(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return nil }

func (held) Console(ctx context.Context, _ io.Reader, _ io.Writer) error { <-ctx.Done(); return nil }

// byAddress opens the rack's BMC at one address, and held ones at all others.
type byAddress struct {
	dialled
	good string
}

func (b *byAddress) open(t power.Target) (power.BMC, error) {
	if _, err := b.dialled.open(t); err != nil || t.Address == b.good {
		return b.bmc, err
	}
	return held{b.bmc}, nil
}

// A deployment that waits for a wrong BMC goes on as soon as an operator sets the right one.
func TestAnotherBMCInTheMiddle(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	b := &byAddress{dialled{all: map[string]bool{}, bmc: r.bmc}, testBMC}
	r.open = b.open
	r.available()
	wrong, right := "192.0.2.99", testBMC
	if _, err := r.now().EditMachine(t.Context(), "test", "m1",
		Edit{BMC: BMCEdit{Address: &wrong}}); err != nil {
		t.Fatal(err)
	}
	r.deploy(inventory.DeployRequest{})
	r.soon("the wrong BMC is asked", func() bool { return b.at(wrong) })
	if _, err := r.now().EditMachine(t.Context(), "test", "m1",
		Edit{BMC: BMCEdit{Address: &right}}); err != nil {
		t.Fatal(err)
	}
	r.until(inventory.Deployed)
	if d, err := r.now().Deployment("m1"); err != nil || countSteps(d, inventory.Validate) != 1 ||
		d.History[0].Error != "" {
		t.Errorf("deployment = %+v, %v, want one validate, without an error", d.History, err)
	}
}

// A deployment of a machine that is off waits for somebody to reboot it, and says why. Once the BMC is
// accepted, the BMC does so.
func TestABMCIsAcceptedWhileTheMachineIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.policy = PolicyAuto
	r.start()
	r.bmc.Set(true)
	r.powerOn(power.Boot{Device: power.DevicePXE})
	m := r.until(inventory.Available)
	name := "m1"
	if _, err := r.now().EditMachine(t.Context(), "test", m.Name, Edit{Name: &name}); err != nil {
		t.Fatal(err)
	}
	// The machine is off.
	r.unplug()
	w, err := r.now().find("m1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.killNonces(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.deploy(inventory.DeployRequest{})
	r.acted(inventory.BootAgent)
	why, _ := r.now().Why("m1")
	if !strings.Contains(why.Sentence, "BMC "+testBMC+" was reported by the agent and not accepted") ||
		!strings.Contains(why.Next, "pxectl machine edit m1 --accept-bmc "+testBMC) {
		t.Errorf("why = %s (next: %s), want the BMC that is not accepted", why.Sentence, why.Next)
	}
	seen := testBMC
	if _, err := r.now().EditMachine(t.Context(), "test", "m1", Edit{AcceptBMC: &seen}); err != nil {
		t.Fatal(err)
	}
	r.until(inventory.Deployed)
	if d, err := r.now().Deployment("m1"); err != nil || countSteps(d, inventory.BootAgent) != 1 {
		t.Errorf("deployment = %+v, %v, want one attempt", d.History, err)
	}
}

// The watcher closes its session to a BMC as soon as an operator has replaced the BMC.
func TestTheConsoleOfAReplacedBMCIsLeft(t *testing.T) {
	t.Parallel()
	r := cold(t)
	r.open = (&byAddress{dialled{
		all: map[string]bool{},
		bmc: powertest.WithConsole{BMC: r.bmc, Line: r.line},
	}, testBMC}).open
	r.listenedTo()
	other := "192.0.2.99"
	if _, err := r.now().EditMachine(t.Context(), "test", "m1",
		Edit{BMC: BMCEdit{Address: &other}}); err != nil {
		t.Fatal(err)
	}
	r.soon("the old console is free", func() bool { return r.line.Holder() == "" })
}
