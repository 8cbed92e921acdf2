package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A stranger's BMC is proposed and not asked. Approval accepts it. Another one later is proposed again, noted
// on the timeline, and accepted by an edit.
func TestAReportedBMCIsProposed(t *testing.T) {
	t.Parallel()
	const moved = "192.0.2.66"
	r := newRack(t)
	d := &dialled{all: map[string]bool{}, bmc: r.bmc}
	r.open = d.open
	r.start()
	r.bmc.Set(true)
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	m := r.machine()
	if m.BMC.Address != "" || m.BMC.Proposed == nil || m.BMC.Proposed.Address != testBMC ||
		m.BMC.Proposed.From != "192.0.2.100" || m.BMC.Proposed.At.IsZero() {
		t.Fatalf("a stranger's BMC = %+v, want %s proposed", m.BMC, testBMC)
	}
	_, err := r.now().PowerStatus(t.Context(), m.Name)
	asProblem(t, "power of a stranger", err, inventory.CodeBMC,
		"BMC "+testBMC+" was reported by the agent and not accepted", "pxectl machine approve "+m.Name)
	why, _ := r.now().Why(m.Name)
	if !strings.Contains(why.Sentence, "its agent reports the BMC at "+testBMC) ||
		!strings.Contains(why.Next, "pxectl machine approve "+m.Name+" --accept-bmc "+testBMC) {
		t.Errorf("why = %s (next: %s), want the BMC that approval accepts", why.Sentence, why.Next)
	}
	_, err = r.now().Approve(t.Context(), "test", m.Name, Approval{})
	asProblem(t, "approval that names no BMC", err, inventory.CodeConflict, "reports the BMC at "+testBMC,
		"machine approve "+m.Name+" --accept-bmc "+testBMC)
	other := "192.0.2.99"
	_, err = r.now().Approve(t.Context(), "test", m.Name, Approval{BMC: &other})
	asProblem(t, "approval of another BMC than was seen", err, inventory.CodeConflict,
		"reports the BMC at "+testBMC+" now", "machine show")
	if d.at(testBMC) {
		t.Error("the BMC was asked before anybody accepted it")
	}
	seen := testBMC
	if m, err = r.now().Approve(t.Context(), "test", m.Name, Approval{BMC: &seen}); err != nil ||
		m.BMC.Address != testBMC || !m.BMC.Discovered || m.BMC.Proposed != nil {
		t.Fatalf("approved: %+v, %v, want its BMC accepted", m.BMC, err)
	}
	_, err = r.now().Approve(t.Context(), "test", m.Name, Approval{BMC: &other})
	asProblem(t, "another approval, of another BMC", err, inventory.CodeConflict,
		"approved already, with its BMC at "+testBMC, "machine show")
	name := "m1"
	if _, err := r.now().EditMachine(t.Context(), "test", string(testMAC), Edit{Name: &name}); err != nil {
		t.Fatal(err)
	}
	r.until(inventory.Available)
	r.soon("its BMC is asked", func() bool { return d.at(testBMC) })

	r.moveBMC("::ffff:" + moved)
	r.reboots()
	if m = r.machine(); m.BMC.Address != testBMC || m.BMC.Proposed == nil ||
		m.BMC.Proposed.Address != moved || m.Report.BMC.Address != moved {
		t.Fatalf("after a report of another BMC: %+v, report %+v, want %s proposed", m.BMC, m.Report.BMC,
			moved)
	}
	r.crash()
	r.reboots()
	if n := countEvents(r, "another BMC than the accepted "+testBMC+" was reported"); n != 1 {
		t.Errorf("%d events tell of the proposal, want 1 for two reports", n)
	}
	why, _ = r.now().Why("m1")
	if !strings.Contains(why.Sentence, moved) ||
		!strings.Contains(why.Next, "pxectl machine edit m1 --accept-bmc "+moved) {
		t.Errorf("why = %s (next: %s), want the proposal", why.Sentence, why.Next)
	}
	r.deploy(inventory.DeployRequest{})
	r.until(inventory.Deployed)
	if d.at(moved) {
		t.Error("the reported BMC was asked before anybody accepted it")
	}

	_, err = r.now().EditMachine(t.Context(), "test", "m1", Edit{AcceptBMC: &other})
	asProblem(t, "acceptance of another one", err, inventory.CodeConflict, "reports the BMC at "+moved+" now",
		"machine show")
	accept := moved
	for range 2 { // accepting it twice is no error
		if m, err = r.now().EditMachine(t.Context(), "test", "m1", Edit{AcceptBMC: &accept}); err != nil ||
			m.BMC.Address != moved || m.BMC.Proposed != nil {
			t.Fatalf("accepted: %+v, %v", m.BMC, err)
		}
	}
	if _, err := r.now().PowerStatus(t.Context(), "m1"); err != nil || !d.at(moved) {
		t.Errorf("power status: %v, the accepted BMC was asked: %v", err, d.at(moved))
	}
}

func countEvents(r *rack, text string) (n int) {
	events, err := r.now().Events(0, "", 10000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		if strings.Contains(e.Text, text) {
			n++
		}
	}
	return n
}

// A reported address is not proposed again after an operator has set another one. It is after an operator has
// removed that one.
func TestADeclinedBMC(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	address := "[::ffff:192.0.2.99]:623"
	m, err := r.now().EditMachine(t.Context(), "test", "m1", Edit{BMC: BMCEdit{Address: &address}})
	if err != nil || m.BMC.Address != "192.0.2.99" || m.BMC.Declined != testBMC {
		t.Fatalf("BMC = %+v, %v, want the canonical 192.0.2.99 in the place of %s", m.BMC, err, testBMC)
	}
	r.reboots()
	if m := r.machine(); m.BMC.Address != "192.0.2.99" || m.BMC.Proposed != nil {
		t.Errorf("the declined address is reported again: %+v, want no proposal", m.BMC)
	}
	address = ""
	if _, err := r.now().EditMachine(t.Context(), "test", "m1",
		Edit{BMC: BMCEdit{Address: &address}}); err != nil {
		t.Fatal(err)
	}
	r.reboots()
	if m := r.machine(); m.BMC.Address != "" || m.BMC.Proposed == nil {
		t.Errorf("BMC = %+v, want a proposal after the operator's address is gone", m.BMC)
	}
}

// Under discovery.policy auto, and for a machine that was announced, a reported BMC gets our password only
// with bmc.trust_reported.
func TestTrustInReportedBMCs(t *testing.T) {
	for _, announced := range []bool{false, true} {
		for _, trust := range []bool{false, true} {
			t.Run(fmt.Sprintf("announced %v, trusted %v", announced, trust), func(t *testing.T) {
				t.Parallel()
				r := newRack(t)
				d := &dialled{all: map[string]bool{}, bmc: r.bmc}
				r.open, r.trust, r.policy = d.open, trust, PolicyAuto
				e := r.start()
				if announced {
					if _, err := e.AddMachine(t.Context(), "test",
						NewMachine{Name: "m1", MACs: []inventory.MAC{testMAC}}); err != nil {
						t.Fatal(err)
					}
				}
				r.bmc.Set(true)
				r.powerOn(power.Boot{Device: power.DevicePXE})
				m := r.until(inventory.Available)
				if trust {
					if m.BMC.Address != testBMC || !m.BMC.Discovered || m.BMC.Proposed != nil {
						t.Errorf("BMC = %+v, want it accepted", m.BMC)
					}
					r.soon("its power is read", func() bool { return r.machine().Power.Known })
					return
				}
				_, err := e.PowerStatus(t.Context(), m.Name)
				asProblem(t, "power status", err, inventory.CodeBMC,
					"BMC "+testBMC+" was reported by the agent and not accepted",
					"pxectl machine edit "+m.Name+" --accept-bmc "+testBMC)
				if m.BMC.Address != "" || m.BMC.Proposed == nil || d.at(testBMC) {
					t.Errorf("BMC = %+v, asked %v, want a proposal that nobody asks", m.BMC, d.at(testBMC))
				}
				if why, _ := e.Why(m.Name); !strings.Contains(why.Next, "--accept-bmc") {
					t.Errorf("why: next %q, want how to accept the BMC", why.Next)
				}
			})
		}
	}
}

// Addresses that cannot be a BMC's are refused even with bmc.trust_reported, our own among them.
func TestReportsThatAreNotBelieved(t *testing.T) {
	t.Parallel()
	for _, reported := range []string{
		"127.0.0.1", "::ffff:127.0.0.1", "192.0.2.1", "::ffff:192.0.2.1",
		"192.0.2.255", "192.0.2.77:623", "239.0.0.1", "nonsense",
	} {
		t.Run(reported, func(t *testing.T) {
			t.Parallel()
			r := newRack(t)
			d := &dialled{all: map[string]bool{}, bmc: r.bmc}
			r.open, r.trust, r.policy, r.at = d.open, true, PolicyAuto, reported
			r.own = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
			r.start()
			r.powerOn(power.Boot{Device: power.DevicePXE})
			m := r.until(inventory.Available)
			if m.BMC.Address != "" || m.BMC.Proposed != nil || countEvents(r, "which is not believed") != 1 ||
				len(d.all) > 0 {
				t.Errorf("BMC = %+v, asked %v, %d events, want that it is not believed", m.BMC, d.all,
					countEvents(r, "which is not believed"))
			}
		})
	}
}

// A BMC belongs to one machine, however its address is written, and however many edits name it at once.
func TestOneBMCIsOneMachines(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	add := func(i int, address string) error {
		_, err := e.AddMachine(t.Context(), "test", NewMachine{
			Name: fmt.Sprintf("n%d", i),
			MACs: []inventory.MAC{inventory.MAC(fmt.Sprintf("52:54:00:00:01:%02x", i))},
			BMC:  BMCEdit{Address: &address},
		})
		return err
	}
	if err := add(1, "192.0.2.7:623"); err != nil {
		t.Fatal(err)
	}
	for i, form := range []string{"192.0.2.7", "::ffff:192.0.2.7", "[::ffff:192.0.2.7]:623"} {
		asProblem(t, form, add(2+i, form), inventory.CodeConflict, "BMC 192.0.2.7 is n1's",
			"pxectl machine show n1")
	}
	if err := add(5, "192.0.2.7:6230"); err != nil {
		t.Errorf("another port is another BMC: %v", err)
	}
	if err := add(6, ""); err != nil {
		t.Fatal(err)
	}
	same := "192.0.2.7"
	_, err := e.EditMachine(t.Context(), "test", "n6", Edit{BMC: BMCEdit{Address: &same}})
	asProblem(t, "edit", err, inventory.CodeConflict, "BMC 192.0.2.7 is n1's", "")

	var wg sync.WaitGroup
	var mu sync.Mutex
	wins := 0
	for _, name := range []string{"n1", "n5", "n6"} { // three workers, one free address
		wg.Go(func() {
			address := "::ffff:192.0.2.8"
			if _, err := e.EditMachine(context.Background(), "test", name,
				Edit{BMC: BMCEdit{Address: &address}}); err == nil {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if wins != 1 {
		t.Errorf("%d machines have one BMC, want 1", wins)
	}

	// A machine that reports another one's BMC can only be approved without it.
	r.moveBMC("192.0.2.8")
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	if m := r.machine(); m.BMC.Proposed != nil || countEvents(r, "which is not believed: it is n") != 1 {
		t.Errorf("BMC = %+v, want that the claim is not believed", m.BMC)
	}
	if _, err := e.Approve(t.Context(), "test", string(testMAC), Approval{}); err != nil {
		t.Errorf("approve: %v", err)
	}
}

// A BMC that became another machine's after it was reported is not accepted with an approval. The machine can
// be approved without it.
func TestApprovalOfABMCThatIsTaken(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	address := testBMC
	if _, err := e.AddMachine(t.Context(), "test",
		NewMachine{
			Name: "n1", UUID: "4c4c4544-0000-1000-8000-000000000001",
			BMC: BMCEdit{Address: &address},
		}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Approve(t.Context(), "test", string(testMAC), Approval{BMC: &address})
	asProblem(t, "approve", err, inventory.CodeConflict, "BMC "+testBMC+" is n1's", "--no-bmc")
	none := ""
	m, err := e.Approve(t.Context(), "test", string(testMAC), Approval{BMC: &none})
	if err != nil || m.State != inventory.Enrolled || m.BMC.Address != "" {
		t.Errorf("approved without a BMC: %s, %+v, %v", m.State, m.BMC, err)
	}
}

// dialled records the addresses at which BMCs were opened.
type dialled struct {
	mu  sync.Mutex
	all map[string]bool
	bmc power.BMC
}

func (d *dialled) open(t power.Target) (power.BMC, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[t.Address] = true
	return d.bmc, nil
}

func (d *dialled) at(address string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[address]
}

// reboots lets the machine's agent register anew and report.
func (r *rack) reboots() {
	r.t.Helper()
	m, err := r.now().Machine(string(testMAC))
	if err != nil {
		r.t.Fatal(err)
	}
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.soon("the agent has reported again", func() bool {
		now, err := r.now().Machine(string(testMAC))
		return err == nil && now.ReportedAt.After(m.ReportedAt)
	})
}

func asProblem(t *testing.T, what string, err error, code inventory.Code, detail, hint string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	if p := inventory.AsProblem(err); p.Code != code || !strings.Contains(p.Detail, detail) ||
		!strings.Contains(p.Hint, hint) {
		t.Errorf("%s: %s: %s (hint: %s), want %s, %q, hint %q", what, p.Code, p.Detail, p.Hint, code, detail,
			hint)
	}
}

// An operator's BMC address must not be the appliance's, unless it has a port of its own, as a virtual BMC
// has.
func TestAnOperatorsBMCIsAnotherHost(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.own = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
	e := r.start()
	if _, err := e.AddMachine(t.Context(), "test",
		NewMachine{Name: "m1", MACs: []inventory.MAC{testMAC}}); err != nil {
		t.Fatal(err)
	}
	for address, says := range map[string]string{
		"127.0.0.1": "loopback", "::1": "loopback", "192.0.2.1": "address of this appliance",
		"::ffff:192.0.2.1": "address of this appliance", "192.0.2.255": "broadcast address of 192.0.2.0/24",
		"192.0.2.51": "", "192.0.2.1:6230": "", "127.0.0.1:6231": "",
	} {
		_, added := e.AddMachine(t.Context(), "test", NewMachine{
			MACs: []inventory.MAC{"52:54:00:00:00:02"}, BMC: BMCEdit{Address: &address},
		})
		if added == nil {
			if err := e.DeleteMachine(t.Context(), "test", "52:54:00:00:00:02"); err != nil {
				t.Fatal(err)
			}
		}
		_, edited := e.EditMachine(t.Context(), "test", "m1", Edit{BMC: BMCEdit{Address: &address}})
		for what, err := range map[string]error{"add": added, "edit": edited} {
			p, _ := errors.AsType[*inventory.Problem](err)
			if (err == nil) != (says == "") ||
				err != nil && (p == nil || p.Code != inventory.CodeInvalid ||
					!strings.Contains(p.Detail, says) || p.Hint == "") {
				t.Errorf("%s with the BMC %s: %v, want %q", what, address, err, says)
			}
		}
	}
}
