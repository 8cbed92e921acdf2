package appliance

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A deafBMC listens on UDP port 623, counts datagrams and never answers.
type deafBMC struct{ heard atomic.Int64 }

// newDeafBMC listens at an address. Unless that is 10.77.0.1 or in 127.0.0.0/8, no interface has it, so that
// the appliance takes it for another host's.
func newDeafBMC(t *testing.T, address string) *deafBMC {
	t.Helper()
	if !strings.HasPrefix(address, "127.") && address != "10.77.0.1" {
		for _, verb := range []string{"add", "del"} {
			route := func() {
				if out, err := exec.Command("ip", "route", verb, "local", address, "dev",
					"lo").CombinedOutput(); err != nil {
					t.Errorf("ip route %s %s: %v: %s", verb, address, err, out)
				}
			}
			if verb == "add" {
				route()
			} else {
				t.Cleanup(route)
			}
		}
	}
	c, err := net.ListenPacket("udp4", net.JoinHostPort(address, "623"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	b := &deafBMC{}
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				return
			}
			b.heard.Add(1)
		}
	}()
	return b
}

// hears waits until the BMC is sent more than n datagrams.
func (b *deafBMC) hears(t *testing.T, what string, n int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); b.heard.Load() <= n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: no datagram reached the accepted BMC", what)
		}
	}
}

// boots lets an agent register and report that its BMC is at the address bmc.
func (s *site) boots(t *testing.T, bmc string) inventory.Machine {
	t.Helper()
	me := inventory.Caller{Key: "key of the agent", IP: "10.77.0.60"}
	bootID := fmt.Sprintf("%08x-0000-4000-8000-000000000000", uint32(time.Now().UnixNano()))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		me.Nonce = s.engine.IssueBoot(clientMAC).Nonce
		_, err := s.engine.Register(t.Context(), me, inventory.Registration{MAC: clientMAC, BootID: bootID})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	order, err := s.engine.Next(t.Context(), me, inventory.Ask{BootID: bootID})
	if err != nil || order.Do != inventory.DoInspect {
		t.Fatalf("the agent is told to %q, %v, want to inspect", order.Do, err)
	}
	disks := []inventory.Disk{
		{Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512},
	}
	report := &inventory.Report{Firmware: "uefi", Disks: disks, BMC: &inventory.BMCReport{Address: bmc}}
	if err := s.engine.OrderResult(t.Context(), me, order.ID,
		inventory.Result{BootID: bootID, Report: report}); err != nil {
		t.Fatal(err)
	}
	m, err := s.engine.Machine(string(clientMAC))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// everything does all that an operator can do with a BMC. It cancels each as soon as something was sent.
func everything(t *testing.T, s *site, remote *api.Client, accepted *deafBMC) {
	t.Helper()
	for what, do := range map[string]func(context.Context){
		"power status": func(ctx context.Context) { _, _ = remote.PowerStatus(ctx, "m1") },
		"power on":     func(ctx context.Context) { _, _ = remote.Power(ctx, "m1", power.ActOn) },
		"boot":         func(ctx context.Context) { _, _ = remote.BootDevice(ctx, "m1") },
		"set boot": func(ctx context.Context) {
			_, _ = remote.SetBootDevice(ctx, "m1", api.BootDevice{Device: power.DevicePXE})
		},
		"doctor": func(ctx context.Context) { _, _ = remote.Doctor(ctx) },
		"console": func(ctx context.Context) {
			if c, err := remote.Console(ctx, "m1"); err == nil {
				c.Close()
			}
		},
		"clean": func(ctx context.Context) { _, _ = remote.Clean(ctx, "m1", inventory.EraseRequest{}) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		n := accepted.heard.Load()
		done := make(chan struct{})
		go func() { defer close(done); do(ctx) }()
		accepted.hears(t, what, n)
		cancel()
		<-done
		if d, err := s.engine.Deployment("m1"); err == nil {
			_, _ = s.engine.CancelDeployment(t.Context(), "test", d.ID)
		}
	}
}

// After a report that moves the BMC of an approved machine, datagrams go to the accepted address alone,
// whatever an operator does, until he accepts the other one.
func TestNothingIsSentToAReportedBMC(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t, "bmc: {user: admin, password: secret}\n")
	accepted, moved := newDeafBMC(t, "10.77.0.51"), newDeafBMC(t, "10.77.0.66")
	others := map[string]*deafBMC{
		"another": moved, "our own": newDeafBMC(t, "10.77.0.1"), "loopback": newDeafBMC(t, "127.0.0.1"),
	}
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	m := s.boots(t, "10.77.0.51")
	if _, err := remote.PowerStatus(t.Context(), m.Name); err == nil ||
		!strings.Contains(err.Error(), "not accepted") {
		t.Errorf("power status of a stranger: %v, want that its BMC is not accepted", err)
	}
	if n := accepted.heard.Load(); n != 0 {
		t.Errorf("%d datagrams were sent before the machine was approved", n)
	}
	seen, name := "10.77.0.51", "m1"
	if m, err = remote.Approve(t.Context(), m.Name, deploy.Approval{BMC: &seen}); err != nil ||
		m.BMC.Address != seen {
		t.Fatalf("approved: %+v, %v", m.BMC, err)
	}
	if _, err := remote.EditMachine(t.Context(), string(m.ID), deploy.Edit{Name: &name}); err != nil {
		t.Fatal(err)
	}
	accepted.hears(t, "the first reading", 0)

	for _, reported := range []string{
		"10.77.0.66", "::ffff:10.77.0.66", "10.77.0.66:623", "10.77.0.51:624",
		"10.77.0.1", "::ffff:10.77.0.1", "127.0.0.1", "10.77.0.255",
	} {
		if m := s.boots(t, reported); m.BMC.Address != "10.77.0.51" {
			t.Fatalf("after a report of %s, the accepted address is %q", reported, m.BMC.Address)
		}
	}
	everything(t, s, remote, accepted)
	for what, b := range others {
		if n := b.heard.Load(); n != 0 {
			t.Errorf("%d datagrams were sent to %s", n, what)
		}
	}

	m, err = remote.Machine(t.Context(), "m1")
	if err != nil || m.BMC.Proposed == nil || m.BMC.Proposed.Address != "10.77.0.66" {
		t.Fatalf("BMC = %+v, %v, want 10.77.0.66 proposed", m.BMC, err)
	}
	if _, err := remote.EditMachine(t.Context(), "m1",
		deploy.Edit{AcceptBMC: &m.BMC.Proposed.Address}); err != nil {
		t.Fatal(err)
	}
	moved.hears(t, "power of the accepted address", 0)
}

// A stranger reports another BMC after `why` has shown an operator the command that accepts one. The command
// is refused, and the BMC that the operator did not see is sent nothing.
func TestOnlyTheBMCThatWasShownIsAccepted(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t, "bmc: {user: admin, password: secret}\n")
	right, stranger := newDeafBMC(t, "10.77.0.51"), newDeafBMC(t, "10.77.0.66")
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	m := s.boots(t, "10.77.0.51")
	shown := func(command string) *string {
		t.Helper()
		why, err := remote.Why(t.Context(), m.Name)
		_, address, ok := strings.Cut(why.Next, command+m.Name+" --accept-bmc ")
		address, _, _ = strings.Cut(address, "`")
		if err != nil || !ok {
			t.Fatalf("why: %+v, %v, want the command that accepts the BMC", why, err)
		}
		return &address
	}
	refused := func(what string, err error) {
		t.Helper()
		p := inventory.AsProblem(err)
		if p == nil || p.Code != inventory.CodeConflict || !strings.Contains(p.Detail, "10.77.0.51") ||
			!strings.Contains(p.Detail, "10.77.0.66") || !strings.Contains(p.Hint, "machine show "+m.Name) {
			t.Errorf("%s: %v, want a conflict with both addresses and the next move", what, err)
		}
	}
	accept := shown("pxectl machine approve ")
	s.boots(t, "10.77.0.66")
	_, err = remote.Approve(t.Context(), m.Name, deploy.Approval{BMC: accept})
	refused("approve", err)
	_, err = remote.Approve(t.Context(), m.Name, deploy.Approval{})
	if p := inventory.AsProblem(err); p == nil || p.Code != inventory.CodeConflict ||
		!strings.Contains(p.Detail, "10.77.0.66") {
		t.Errorf("approve without an address: %v, want a conflict", err)
	}
	none := ""
	if m, err = remote.Approve(t.Context(), m.Name, deploy.Approval{BMC: &none}); err != nil {
		t.Fatal(err)
	}
	s.boots(t, "10.77.0.51")
	accept = shown("pxectl machine edit ")
	s.boots(t, "10.77.0.66")
	_, err = remote.EditMachine(t.Context(), m.Name, deploy.Edit{AcceptBMC: accept})
	refused("edit", err)
	if m, err = remote.Machine(t.Context(), m.Name); err != nil || m.BMC.Address != "" {
		t.Errorf("the accepted BMC is %q, %v, want none", m.BMC.Address, err)
	}
	s.boots(t, "10.77.0.51")
	if _, err := remote.EditMachine(t.Context(), m.Name, deploy.Edit{AcceptBMC: accept}); err != nil {
		t.Fatal(err)
	}
	right.hears(t, "power of the accepted BMC", 0)
	if n := stranger.heard.Load(); n != 0 {
		t.Errorf("%d datagrams were sent to the address that nobody saw", n)
	}
}

// Under discovery.policy auto, the shared password is tried at a reported address only with
// bmc.trust_reported.
func TestNothingIsSentUnderAuto(t *testing.T) {
	testnet.Need(t, "ip")
	for _, trust := range []bool{false, true} {
		t.Run(fmt.Sprint(trust), func(t *testing.T) {
			s := newSite(t, fmt.Sprintf("discovery: {policy: auto}\n"+
				"bmc: {user: admin, password: secret, trust_reported: %v}\n", trust))
			b := newDeafBMC(t, "10.77.0.51")
			m := s.boots(t, "10.77.0.51")
			if trust {
				b.hears(t, "the first reading", 0)
				return
			}
			// A call sends nothing after it has returned.
			remote, err := api.NewClient(s.socket)
			if err != nil {
				t.Fatal(err)
			}
			_, status := remote.PowerStatus(t.Context(), m.Name)
			checks, err := remote.Doctor(t.Context())
			if status == nil || !strings.Contains(status.Error(), "not accepted") || err != nil ||
				!strings.Contains(apitest.ChecksOf(checks, "reported BMCs"), m.Name) {
				t.Errorf("power status: %v; doctor: %q, %v; want that the BMC is not accepted", status,
					apitest.ChecksOf(checks, "reported BMCs"), err)
			}
			if n := b.heard.Load(); n != 0 || m.State == inventory.Discovered {
				t.Errorf("%d datagrams were sent, and the machine is %s", n, m.State)
			}
		})
	}
}
