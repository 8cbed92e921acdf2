package deploy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// Without a BMC, an agent that hangs is as silent as a machine that starts. Proofs and failures say no more
// than what was seen.
func TestAHungAgentIsNoReboot(t *testing.T) {
	// deploying returns a rack whose machine has no BMC and whose agent has the order to reboot. The agent
	// does it when the test closes goOn.
	deploying := func(t *testing.T) (r *rack, told, goOn chan struct{}) {
		t.Parallel()
		r, told, goOn = newRack(t), make(chan struct{}), make(chan struct{})
		r.noBMC = true
		r.onOrder = func(o inventory.Order) {
			if o.Do == inventory.DoReboot {
				close(told)
				<-goOn
			}
		}
		r.available()
		r.deploy(inventory.DeployRequest{})
		<-told
		return r, told, goOn
	}
	stepOf := func(t *testing.T, r *rack, step inventory.Step) inventory.StepRecord {
		t.Helper()
		d, err := r.now().Deployment("m1")
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range d.History {
			if rec.Step == step {
				return rec
			}
		}
		t.Fatalf("no step %s in %+v", step, d.History)
		return inventory.StepRecord{}
	}

	t.Run("before it says that it reboots", func(t *testing.T) {
		r, _, goOn := deploying(t)
		defer close(goOn)
		r.ahead.Add(int64(agentReboot + time.Second))
		m := r.until(inventory.Failed)
		if m.Failure.Step != string(inventory.BootOS) ||
			!strings.Contains(m.Failure.Reason, "did not say that it does") ||
			!strings.Contains(m.Failure.Hint, "restart it by hand") {
			t.Errorf("failure = %+v", m.Failure)
		}
	})
	t.Run("after it said that it reboots", func(t *testing.T) {
		r, _, goOn := deploying(t)
		r.hangs.Store(true)
		close(goOn)
		r.soon("verify-os began", func() bool {
			d, err := r.now().Deployment("m1")
			return err == nil && d.Step == inventory.VerifyOS
		})
		if p := stepOf(t, r, inventory.BootOS).Proof; !strings.Contains(p,
			"the agent says that it restarts the machine") {
			t.Errorf("proof of boot-os = %q, want the agent's word as such", p)
		}
		r.ahead.Add(int64(r.dead.VerifyOS))
		m := r.until(inventory.Deployed)
		if !m.Unverified ||
			!strings.Contains(m.LastProof, "nothing was seen of it since its agent was told to restart it") {
			t.Errorf("unverified %v, last proof %q, want that nothing was seen", m.Unverified, m.LastProof)
		}
		if m.Power.Known {
			t.Errorf("power = %+v, which nobody has seen", m.Power)
		}
	})
	t.Run("and the system is there", func(t *testing.T) {
		r, _, goOn := deploying(t)
		r.noHome.Store(true)
		close(goOn)
		r.soon("verify-os began", func() bool {
			d, err := r.now().Deployment("m1")
			return err == nil && d.Step == inventory.VerifyOS
		})
		r.ahead.Add(int64(r.dead.VerifyOS))
		m := r.until(inventory.Deployed)
		if !m.Unverified ||
			!strings.Contains(m.LastProof, "it asked for a network boot and was sent to its disk") {
			t.Errorf("unverified %v, last proof %q, want the sign that was seen", m.Unverified, m.LastProof)
		}
	})
	t.Run("and only its DHCP is seen", func(t *testing.T) {
		r, _, goOn := deploying(t)
		r.hangs.Store(true)
		close(goOn)
		r.soon("verify-os began", func() bool {
			d, err := r.now().Deployment("m1")
			return err == nil && d.Step == inventory.VerifyOS
		})
		r.now().SawSystem(testMAC)
		r.ahead.Add(int64(r.dead.VerifyOS))
		if m := r.until(inventory.Deployed); !m.Unverified ||
			!strings.Contains(m.LastProof, "a system on it asked for an address") {
			t.Errorf("unverified %v, last proof %q, want the sign that was seen", m.Unverified, m.LastProof)
		}
	})
	t.Run("and somebody resets the machine", func(t *testing.T) {
		r, _, goOn := deploying(t)
		defer close(goOn)
		r.ahead.Add(int64(agentRepeats + time.Second))
		r.wg.Go(func() { r.system(context.Background()) }) // it starts while the script is asked for
		if a := r.now().IssueBoot(testMAC); !a.Local {
			t.Errorf("the machine that was reset gets %+v, want its disk", a)
		}
		if m := r.until(inventory.Deployed); m.Unverified {
			t.Error("its system phoned home, and it is unverified")
		}
	})
}
