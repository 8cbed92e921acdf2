package deploy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	ctx := context.Background()
	e := r.now()
	problem := func(name string, err error, code inventory.Code, detail, hint string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", name)
			return
		}
		if p := inventory.AsProblem(err); p.Code != code || !strings.Contains(p.Detail, detail) ||
			!strings.Contains(p.Hint, hint) {
			t.Errorf("%s: %s: %s (hint: %s), want %s, %q, hint %q", name, p.Code, p.Detail, p.Hint, code,
				detail, hint)
		}
	}
	good := e.IssueBoot(testMAC).Nonce
	_, err := e.Register(ctx, agentAt("AAAA", "192.0.2.9"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("x")})
	problem("wrong nonce", err, inventory.CodeRefused, "not one of this appliance's",
		"boot the machine from the network again")
	_, err = e.Register(ctx, agentAt(good, "192.0.2.9"),
		inventory.Registration{MAC: "52:54:00:00:00:99", BootID: bootIDOf("x")})
	problem("another machine's nonce", err, inventory.CodeRefused, "issued to 52:54:00:00:00:01", "again")
	if _, err = e.Register(ctx, agentAt(good, "192.0.2.9"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("first")}); err != nil {
		t.Errorf("a fresh nonce: %v", err)
	}
	if _, err = e.Register(ctx, agentAt(good, "192.0.2.9"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("first")}); err != nil {
		t.Errorf("the same boot again, because the answer was lost: %v", err)
	}
	_, err = e.Register(ctx, agentAt(good, "192.0.2.66"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("second")})
	problem("replayed nonce", err, inventory.CodeRefused, "by another agent", "replays")
	_, err = e.Next(ctx, agentAt(good, "192.0.2.9"), inventory.Ask{BootID: bootIDOf("second")})
	problem("another boot's call", err, inventory.CodeRefused, "another boot's", "again")
	if _, err := e.Power(ctx, "test", "m1", power.ActOff); err != nil {
		t.Fatal(err)
	}
	_, err = e.Register(ctx, agentAt(good, "192.0.2.9"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("first")})
	problem("nonce of a boot that ended", err, inventory.CodeRefused, "powered off", "again")
	err = e.OrderProgress(ctx, agentAt(good, "192.0.2.9"), "d-1",
		inventory.Progress{BootID: bootIDOf("first")})
	problem("call of a boot that ended", err, inventory.CodeRefused, "has ended", "again")

	_, err = e.Deploy(ctx, "test", "m9", inventory.DeployRequest{Image: "debian-12"})
	problem("unknown machine", err, inventory.CodeNotFound, `no machine "m9"`, "machine list")
	_, err = e.Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-99"})
	problem("unknown image", err, inventory.CodeNotFound, `no image "debian-99"`, "")
	_, err = e.Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-12", Hostname: "Bad Name"})
	problem("bad hostname", err, inventory.CodeInvalid, `hostname "Bad Name"`, "lower-case")
	_, err = e.Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-12", Mode: "quick"})
	problem("bad mode", err, inventory.CodeInvalid, `mode "quick": have auto, full, delta`, "")
	_, err = e.Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-12", Verify: "no"})
	problem("bad verify", err, inventory.CodeInvalid, `verify "no": have readback, hash`, "")
	r.mute.Store(true)
	d := r.deploy(inventory.DeployRequest{})
	_, err = e.Deploy(ctx, "test", "m1", inventory.DeployRequest{Image: "debian-12"})
	problem("a second deploy", err, inventory.CodeConflict, "is being deployed already ("+string(d.ID),
		"deployment cancel "+string(d.ID))
	_, err = e.Power(ctx, "test", "m1", power.ActOff)
	problem("power in the middle", err, inventory.CodeConflict, "is being deployed", "cancel")
	_, err = e.SetBootDevice(ctx, "test", "m1", power.Boot{Device: power.DeviceDisk})
	problem("boot device in the middle", err, inventory.CodeConflict, "is being deployed ("+string(d.ID),
		"deployment cancel "+string(d.ID))
	if d, err := e.CancelDeployment(ctx, "test", d.ID); err != nil || d.Outcome != inventory.Cancelled {
		t.Errorf("cancel = %+v, %v", d, err)
	}
	if m, _ := e.Machine("m1"); m.State != inventory.Available {
		t.Errorf("after a cancel before its disk was touched, the machine is %s, want available", m.State)
	}
	r.bmc.Misbehave(func(q *powertest.Quirks) { q.Silent = true })
	if err := e.DeleteMachine(ctx, "test", "m1"); err != nil {
		t.Errorf("delete with a dead BMC: %v", err)
	}
	_, err = e.Machine("m1")
	problem("a deleted machine", err, inventory.CodeNotFound, `no machine "m1"`, "no machine has registered")
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	t.Run("auto", func(t *testing.T) {
		r := newRack(t)
		r.policy = PolicyAuto
		r.start()
		r.powerOn(power.Boot{Device: power.DevicePXE})
		r.until(inventory.Available)
	})
	t.Run("deny", func(t *testing.T) {
		r := newRack(t)
		r.policy = PolicyDeny
		e := r.start()
		if a := e.IssueBoot(testMAC); a.Agent || a.Local {
			t.Errorf("an unknown machine gets %+v, want nothing", a)
		}
		_, err := e.Register(context.Background(), agentAt(e.nonces.Issue(testMAC), "192.0.2.9"),
			inventory.Registration{MAC: testMAC, BootID: bootIDOf("x")})
		if p := inventory.AsProblem(err); err == nil || p.Code != inventory.CodeRefused ||
			!strings.Contains(p.Hint, "machine add") {
			t.Errorf("registration under deny: %v", err)
		}
	})
}

func TestAnAgentAtWorkIsNotDisplaced(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	hold := make(chan struct{})
	r.onOrder = func(o inventory.Order) {
		if o.Do == inventory.DoWriteImage {
			<-hold
		}
	}
	r.available()
	r.deploy(inventory.DeployRequest{})
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if d, err := r.now().Deployment("m1"); err == nil && d.Step == inventory.WriteImage {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the write never began")
		}
	}
	_, err := r.now().Register(context.Background(), agentAt(r.now().IssueBoot(testMAC).Nonce, "192.0.2.66"),
		inventory.Registration{MAC: testMAC, BootID: bootIDOf("thief")})
	// A conflict is what an agent asks again after; a refusal is for good.
	if p := inventory.AsProblem(err); err == nil || p.Code != inventory.CodeConflict ||
		!strings.Contains(p.Detail, "another agent is at work") {
		t.Errorf("registration beside an agent at work: %v, want a conflict", err)
	}
	close(hold)
	r.until(inventory.Deployed)
}

// An agent whose call was held while another one registered gets no order of that one's.
func TestAHeldCallGetsNoOrderOfAnotherBoot(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	agents := []inventory.Caller{}
	register := func() {
		c := agentAt(e.IssueBoot(testMAC).Nonce, "192.0.2.66")
		if _, err := e.Register(t.Context(), c, inventory.Registration{
			MAC: testMAC, BootID: bootIDOf(c.Nonce),
		}); err != nil {
			t.Fatal(err)
		}
		agents = append(agents, c)
	}
	next := func(c inventory.Caller) (inventory.Order, error) {
		return e.Next(t.Context(), c, inventory.Ask{BootID: bootIDOf(c.Nonce)})
	}
	register()
	o, err := next(agents[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := e.OrderResult(t.Context(), agents[0], o.ID, inventory.Result{
		BootID: bootIDOf(agents[0].Nonce), Report: &inventory.Report{},
	}); err != nil {
		t.Fatal(err)
	}
	const calls = 50 // of which some at least are held by now
	held := make(chan error, calls)
	for range calls {
		go func() {
			_, err := next(agents[0])
			held <- err
		}()
	}
	time.Sleep(10 * time.Millisecond) // whatever comes later is refused anyway
	register()                        // its report is ordered at once
	if o, err = next(agents[1]); err != nil || o.Do != inventory.DoInspect {
		t.Errorf("the new agent's order is %q, %v, want %s", o.Do, err, inventory.DoInspect)
	}
	for range calls {
		asProblem(t, "a held call", <-held, inventory.CodeRefused, "", "again")
	}
}
