package apitest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A Subject is a fleet that the suite looks at, and what happens in it that no operator does.
type Subject struct {
	api.Fleet
	// Discover lets a machine register itself and report its BMC there; "" when it has none. It returns when that is recorded.
	Discover func(t *testing.T, mac inventory.MAC, bmc string)
	// Hold keeps runs at their first step from now on.
	Hold func()
}

const (
	suiteMAC = inventory.MAC("52:54:00:00:00:01")
	suiteBMC = "192.0.2.51"
	image    = "debian-12" // every fleet has it
)

// RunFleetSuite checks what holds of every fleet: that of the engine, and the one that stands in for it in tests.
func RunFleetSuite(t *testing.T, newFleet func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"add": suiteAdd, "refs": suiteRefs, "unknown": suiteUnknown, "names": suiteNames, "approve": suiteApprove, "approve with a BMC": suiteApproveBMC,
		"edit": suiteEdit, "accept a BMC": suiteAcceptBMC, "delete": suiteDelete, "delete all strangers": suiteDeleteDiscovered, "BMC": suiteBMCs, "deploy": suiteDeploy,
	} {
		t.Run(name, func(t *testing.T) { test(t, newFleet(t)) })
	}
}

// fails checks an error's code, and that it says something of what it is about.
func fails(t *testing.T, what string, err error, code inventory.Code, says string) {
	t.Helper()
	p, ok := errors.AsType[*inventory.Problem](err)
	switch {
	case err == nil:
		t.Errorf("%s: no error, want %s", what, code)
	case !ok || p.Code != code || !strings.Contains(p.Detail, says):
		t.Errorf("%s: %v (%+v), want %s and %q", what, err, p, code, says)
	}
}

func (s Subject) add(t *testing.T, n deploy.NewMachine) inventory.Machine {
	t.Helper()
	m, err := s.AddMachine(t.Context(), "suite", n)
	if err != nil {
		t.Fatalf("add %s: %v", n.Name, err)
	}
	return m
}

// discovered lets a machine register itself.
func (s Subject) discovered(t *testing.T, mac inventory.MAC, bmc string) inventory.Machine {
	t.Helper()
	s.Discover(t, mac, bmc)
	m, err := s.Machine(string(mac))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// until waits for a state.
func (s Subject) until(t *testing.T, ref string, want inventory.State) inventory.Machine {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		m, err := s.Machine(ref)
		if err == nil && m.State == want {
			return m
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s, %v, want %s", ref, m.State, err, want)
		}
	}
}

func suiteAdd(t *testing.T, s Subject) {
	bmc, user, password := "[::ffff:192.0.2.7]:623", "root", "hunter2"
	disk := inventory.DiskHint{Serial: "S1"}
	m := s.add(t, deploy.NewMachine{
		Name: "web1", MACs: []inventory.MAC{"52-54-00-AA-BB-01"}, UUID: "4C4C4544-0000-1000-8000-000000000001", Labels: map[string]string{"rack": "a"},
		BMC: deploy.BMCEdit{Address: &bmc, User: &user, Password: &password}, RootDisk: &disk,
	})
	if m.ID == "" || m.Name != "web1" || m.State != inventory.Enrolled || !cmp.Equal(m.MACs, []inventory.MAC{"52:54:00:aa:bb:01"}) ||
		m.UUID != "4c4c4544-0000-1000-8000-000000000001" || m.Labels["rack"] != "a" || m.RootDisk == nil || m.RootDisk.Serial != "S1" || m.CreatedAt.IsZero() {
		t.Errorf("added: %+v", m)
	}
	if m.BMC.Address != "192.0.2.7" || m.BMC.User != "root" || len(m.BMC.Password) == 0 || string(m.BMC.Password) == password || m.BMC.Discovered {
		t.Errorf("its BMC: %+v, want the canonical address and a sealed password", m.BMC)
	}
	if other := s.add(t, deploy.NewMachine{UUID: "4c4c4544-0000-1000-8000-000000000002"}); other.Name == "" || other.ID == m.ID {
		t.Errorf("added without a name: %+v, want one of its own", other)
	}
	address := func(a string) deploy.BMCEdit { return deploy.BMCEdit{Address: &a} }
	mac := []inventory.MAC{"52:54:00:aa:bb:02"}
	for what, c := range map[string]struct {
		n    deploy.NewMachine
		code inventory.Code
		says string
	}{
		"nothing to know it by": {deploy.NewMachine{Name: "x"}, inventory.CodeInvalid, "MAC or a UUID"},
		"a BMC alone":           {deploy.NewMachine{Name: "x", BMC: address("192.0.2.8")}, inventory.CodeInvalid, "MAC or a UUID"},
		"a multicast MAC":       {deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"01:00:5e:00:00:01"}}, inventory.CodeInvalid, "multicast"},
		"no MAC":                {deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"web"}}, inventory.CodeInvalid, `"web"`},
		"no BMC address":        {deploy.NewMachine{Name: "x", MACs: mac, BMC: address("bmc.example")}, inventory.CodeInvalid, "bmc.example"},
		"a taken name":          {deploy.NewMachine{Name: "web1", MACs: mac}, inventory.CodeConflict, `name "web1" is web1's`},
		"a taken MAC":           {deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"5254.00aa.bb01"}}, inventory.CodeConflict, "52:54:00:aa:bb:01 is web1's"},
		"a taken BMC":           {deploy.NewMachine{Name: "x", MACs: mac, BMC: address("192.0.2.7:623")}, inventory.CodeConflict, "BMC 192.0.2.7 is web1's"},
	} {
		_, err := s.AddMachine(t.Context(), "suite", c.n)
		fails(t, what, err, c.code, c.says)
	}
	if n := len(s.Machines()); n != 2 {
		t.Errorf("there are %d machines, want 2: what was refused leaves nothing", n)
	}
}

func suiteNames(t *testing.T, s Subject) {
	s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{suiteMAC}})
	for name, says := range map[string]string{
		"Web": "want a DNS label", "a.b": "want a DNS label", "-a": "want a DNS label", "a b": "want a DNS label", strings.Repeat("a", 64): "want a DNS label",
		"m-0badcafe": "looks like an id", "d-00000001": "looks like an id", "e-00000001": "looks like an id",
		"525400000001": "looks like a MAC", "52-54-00-00-00-01": "looks like a MAC", "01-52-54-00-00-00-01": "looks like a MAC",
	} {
		_, err := s.AddMachine(t.Context(), "suite", deploy.NewMachine{Name: name, MACs: []inventory.MAC{"52:54:00:00:00:02"}})
		fails(t, "add "+name, err, inventory.CodeInvalid, says)
		_, err = s.EditMachine(t.Context(), "suite", "web1", deploy.Edit{Name: &name})
		fails(t, "rename to "+name, err, inventory.CodeInvalid, says)
	}
	_, err := s.EditMachine(t.Context(), "suite", "web1", deploy.Edit{Name: new(string)})
	fails(t, "rename to nothing", err, inventory.CodeInvalid, "want a DNS label")
	for _, name := range []string{"m-0badcaf", "m-0badcafg", "d-1", "m000001", "cafe", "52540000000"} {
		if m, err := s.EditMachine(t.Context(), "suite", string(suiteMAC), deploy.Edit{Name: &name}); err != nil || m.Name != name {
			t.Errorf("rename to %s: %s, %v", name, m.Name, err)
		}
	}
}

func suiteRefs(t *testing.T, s Subject) {
	b := s.add(t, deploy.NewMachine{Name: "b", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	a := s.add(t, deploy.NewMachine{Name: "a", MACs: []inventory.MAC{suiteMAC, "52:54:00:00:00:03"}})
	for _, ref := range []string{"a", string(a.ID), "52:54:00:00:00:01", "52-54-00-00-00-01", "525400000001", "01-52-54-00-00-00-01", "52:54:00:00:00:03"} {
		if m, err := s.Machine(ref); err != nil || m.ID != a.ID {
			t.Errorf("Machine(%q) = %s, %v, want a", ref, m.Name, err)
		}
	}
	all := s.Machines()
	if len(all) != 2 || all[0].ID != a.ID || all[1].ID != b.ID {
		t.Errorf("Machines() = %v, want a and b by name", all)
	}
}

// suiteUnknown asks everything about a machine that is not there.
func suiteUnknown(t *testing.T, s Subject) {
	ctx := t.Context()
	for _, ref := range []string{"nobody", "m-0badcafe", "52:54:00:00:00:99", ""} {
		for what, ask := range map[string]func() error{
			"Machine":          func() error { _, err := s.Machine(ref); return err },
			"EditMachine":      func() error { _, err := s.EditMachine(ctx, "suite", ref, deploy.Edit{}); return err },
			"DeleteMachine":    func() error { return s.DeleteMachine(ctx, "suite", ref) },
			"Approve":          func() error { _, err := s.Approve(ctx, "suite", ref, deploy.Approval{}); return err },
			"Deploy":           func() error { _, err := s.Deploy(ctx, "suite", ref, inventory.DeployRequest{Image: image}); return err },
			"Plan":             func() error { _, err := s.Plan(ref, inventory.DeployRequest{Image: image}); return err },
			"Release":          func() error { _, err := s.Release(ctx, "suite", ref, inventory.EraseRequest{}); return err },
			"Clean":            func() error { _, err := s.Clean(ctx, "suite", ref, inventory.EraseRequest{}); return err },
			"Deployment":       func() error { _, err := s.Deployment(ref); return err },
			"CancelDeployment": func() error { _, err := s.CancelDeployment(ctx, "suite", inventory.DeploymentID(ref)); return err },
			"Power":            func() error { _, err := s.Power(ctx, "suite", ref, power.ActOn); return err },
			"PowerStatus":      func() error { _, err := s.PowerStatus(ctx, ref); return err },
			"Boot":             func() error { _, err := s.BootDevice(ctx, ref); return err },
			"SetBoot":          func() error { _, err := s.SetBootDevice(ctx, "suite", ref, power.Boot{Device: power.DevicePXE}); return err },
			"Console":          func() error { return s.Console(ctx, "suite", ref, strings.NewReader(""), io.Discard) },
		} {
			fails(t, what+" of "+ref, ask(), inventory.CodeNotFound, ref)
		}
	}
	_, err := s.Why("nobody")
	fails(t, "Why", err, inventory.CodeNotFound, "nobody")
	_, err = s.Events(0, "m-0badcafe", 10)
	fails(t, "Events", err, inventory.CodeNotFound, "m-0badcafe")
	if p, ok := s.Progress("m-0badcafe"); ok {
		t.Errorf("Progress = %+v, want none", p)
	}
	if found, err := s.Erasures("nobody"); err != nil || len(found) != 0 {
		t.Errorf("Erasures = %v, %v, want none", found, err)
	}
}

func suiteApprove(t *testing.T, s Subject) {
	m := s.discovered(t, suiteMAC, "")
	if m.State != inventory.Discovered || m.BMC.Address != "" || m.BMC.Proposed != nil {
		t.Fatalf("a machine that registered itself: %s, %+v", m.State, m.BMC)
	}
	ctx := t.Context()
	if m, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil || m.State == inventory.Discovered {
		t.Fatalf("approve: %s, %v", m.State, err)
	}
	m = s.until(t, m.Name, inventory.Available) // it has reported
	if again, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil || again.State != inventory.Available {
		t.Errorf("approve twice: %s, %v, want no mistake and no change", again.State, err)
	}
	added := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	if again, err := s.Approve(ctx, "suite", "web1", deploy.Approval{}); err != nil || again.State != added.State {
		t.Errorf("approve of one that was added: %s, %v, want no mistake and no change", again.State, err)
	}
}

func suiteApproveBMC(t *testing.T, s Subject) {
	ctx := t.Context()
	m := s.discovered(t, suiteMAC, suiteBMC)
	if m.BMC.Address != "" || m.BMC.Proposed == nil || m.BMC.Proposed.Address != suiteBMC || m.BMC.Proposed.At.IsZero() {
		t.Fatalf("a reported BMC: %+v, want it proposed", m.BMC)
	}
	other := "192.0.2.99"
	_, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &other})
	fails(t, "approve with another BMC", err, inventory.CodeConflict, other)
	if now, _ := s.Machine(m.Name); now.State != inventory.Discovered {
		t.Errorf("after a refused approval the machine is %s", now.State)
	}
	seen := suiteBMC
	if m, err = s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &seen}); err != nil || m.BMC.Address != seen || !m.BMC.Discovered || m.BMC.Proposed != nil {
		t.Errorf("approve: %+v, %v, want the BMC accepted", m.BMC, err)
	}
	second := s.discovered(t, "52:54:00:00:00:02", "192.0.2.52")
	none := ""
	if second, err = s.Approve(ctx, "suite", second.Name, deploy.Approval{BMC: &none}); err != nil || second.BMC.Address != "" || second.BMC.Proposed == nil {
		t.Errorf("approve without a BMC: %+v, %v, want it proposed still", second.BMC, err)
	}
	third := s.discovered(t, "52:54:00:00:00:03", "192.0.2.53")
	if third, err = s.Approve(ctx, "suite", third.Name, deploy.Approval{}); err != nil || third.BMC.Address != "192.0.2.53" {
		t.Errorf("approve of whatever is reported: %+v, %v", third.BMC, err)
	}
	fourth, taken := s.discovered(t, "52:54:00:00:00:04", "192.0.2.54"), "192.0.2.54"
	s.add(t, deploy.NewMachine{Name: "web1", UUID: "4c4c4544-0000-1000-8000-000000000001", BMC: deploy.BMCEdit{Address: &taken}})
	_, err = s.Approve(ctx, "suite", fourth.Name, deploy.Approval{})
	fails(t, "approve with a BMC that is another's by now", err, inventory.CodeConflict, "BMC 192.0.2.54 is web1's")
}

func suiteEdit(t *testing.T, s Subject) {
	ctx := t.Context()
	s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{suiteMAC}, Labels: map[string]string{"rack": "a", "old": "yes"}})
	s.add(t, deploy.NewMachine{Name: "web2", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	edit := func(e deploy.Edit) inventory.Machine {
		t.Helper()
		m, err := s.EditMachine(ctx, "suite", string(suiteMAC), e)
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := s.Machine(string(suiteMAC)); err != nil || !cmp.Equal(m, stored) {
			t.Errorf("the answer of an edit differs from the machine: %v\n%s", err, cmp.Diff(stored, m))
		}
		return m
	}
	text := func(s string) *string { return &s }
	if m := edit(deploy.Edit{Labels: map[string]*string{"rack": text("b"), "old": nil, "none": nil}}); !cmp.Equal(m.Labels, map[string]string{"rack": "b"}) {
		t.Errorf("labels = %v", m.Labels)
	}
	disk := inventory.DiskHint{Serial: "S1"}
	if m := edit(deploy.Edit{RootDisk: &disk}); m.RootDisk == nil || m.RootDisk.Serial != "S1" || m.Labels["rack"] != "b" {
		t.Errorf("root disk = %v, labels %v", m.RootDisk, m.Labels)
	}
	if m := edit(deploy.Edit{RootDisk: &inventory.DiskHint{}}); m.RootDisk != nil {
		t.Errorf("root disk = %v, want it cleared", m.RootDisk)
	}
	if m := edit(deploy.Edit{Maintenance: text("new fan")}); m.Maintenance == nil || m.Maintenance.Reason != "new fan" || m.Maintenance.Actor != "suite" || m.Maintenance.Since.IsZero() {
		t.Errorf("maintenance = %+v", m.Maintenance)
	}
	if m := edit(deploy.Edit{Maintenance: text("")}); m.Maintenance != nil {
		t.Errorf("maintenance = %+v, want it over", m.Maintenance)
	}
	m := edit(deploy.Edit{BMC: deploy.BMCEdit{Address: text("192.0.2.7:623"), User: text("root"), Password: text("hunter2")}})
	if m.BMC.Address != "192.0.2.7" || m.BMC.User != "root" || len(m.BMC.Password) == 0 || string(m.BMC.Password) == "hunter2" {
		t.Errorf("BMC = %+v", m.BMC)
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{Kg: text("0x00ff")}}); len(m.BMC.Kg) == 0 || string(m.BMC.Kg) == "\x00\xff" || string(m.BMC.Kg) == "0x00ff" || len(m.BMC.Password) == 0 {
		t.Errorf("BMC = %+v, want its key beside the rest, sealed", m.BMC)
	}
	for _, key := range []string{"0x0", "0xzz", "0x" + strings.Repeat("00", 20), "0x" + strings.Repeat("a1", 21), "more than twenty bytes"} {
		_, err := s.EditMachine(ctx, "suite", "web1", deploy.Edit{BMC: deploy.BMCEdit{Kg: &key}})
		fails(t, "a key that no BMC has", err, inventory.CodeInvalid, "BMC key K_g: ")
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{Kg: text("")}}); len(m.BMC.Kg) != 0 {
		t.Errorf("BMC = %+v, want no key", m.BMC)
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{Address: text(""), User: text(""), Password: text("")}}); m.BMC.Address != "" || m.BMC.User != "" || len(m.BMC.Password) != 0 {
		t.Errorf("BMC = %+v, want nothing", m.BMC)
	}
	if m := edit(deploy.Edit{Name: text("web1")}); m.Name != "web1" {
		t.Errorf("renamed to its own name: %s", m.Name)
	}
	_, err := s.EditMachine(ctx, "suite", "web1", deploy.Edit{Name: text("web2"), Labels: map[string]*string{"rack": text("c")}})
	fails(t, "a taken name", err, inventory.CodeConflict, `name "web2" is web2's`)
	_, err = s.EditMachine(ctx, "suite", "web1", deploy.Edit{BMC: deploy.BMCEdit{Address: text("bmc.example")}, Labels: map[string]*string{"rack": text("c")}})
	fails(t, "no BMC address", err, inventory.CodeInvalid, "bmc.example")
	if m, err := s.Machine("web1"); err != nil || m.Labels["rack"] != "b" {
		t.Errorf("after edits that were refused: labels %v, %v, want them as they were", m.Labels, err)
	}
	if m := edit(deploy.Edit{Name: text("app1")}); m.Name != "app1" {
		t.Errorf("renamed: %s", m.Name)
	}
	_, err = s.Machine("web1")
	fails(t, "the old name", err, inventory.CodeNotFound, "web1")
	s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:03"}}) // it is free again
}

func suiteAcceptBMC(t *testing.T, s Subject) {
	ctx := t.Context()
	m, none, other, seen := s.discovered(t, suiteMAC, suiteBMC), "", "192.0.2.99", suiteBMC
	if _, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &none}); err != nil {
		t.Fatal(err)
	}
	_, err := s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &other})
	fails(t, "another one", err, inventory.CodeConflict, other)
	_, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &none})
	fails(t, "none", err, inventory.CodeConflict, m.Name)
	_, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &seen, BMC: deploy.BMCEdit{Address: &other}})
	fails(t, "accepted and given", err, inventory.CodeInvalid, "accepted")
	for range 2 {
		if m, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &seen}); err != nil || m.BMC.Address != seen || !m.BMC.Discovered || m.BMC.Proposed != nil {
			t.Errorf("accepted: %+v, %v", m.BMC, err)
		}
	}
	added := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	_, err = s.EditMachine(ctx, "suite", "web1", deploy.Edit{AcceptBMC: &seen})
	fails(t, "of a machine that reported none", err, inventory.CodeConflict, added.Name)
}

func suiteDelete(t *testing.T, s Subject) {
	ctx, bmc := t.Context(), "192.0.2.7"
	m := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{suiteMAC}, BMC: deploy.BMCEdit{Address: &bmc}})
	if err := s.DeleteMachine(ctx, "suite", "web1"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"web1", string(m.ID), string(suiteMAC)} {
		_, err := s.Machine(ref)
		fails(t, "a machine that is gone", err, inventory.CodeNotFound, ref)
		fails(t, "delete twice", s.DeleteMachine(ctx, "suite", ref), inventory.CodeNotFound, ref)
	}
	// Its name, MAC and BMC are free again; its id is not.
	if again := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{suiteMAC}, BMC: deploy.BMCEdit{Address: &bmc}}); again.ID == m.ID {
		t.Errorf("two machines were called %s", m.ID)
	}
}

func suiteDeleteDiscovered(t *testing.T, s Subject) {
	ctx := t.Context()
	s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{suiteMAC}})
	strangers := []inventory.MAC{"52:54:00:00:00:21", "52:54:00:00:00:22"}
	for _, mac := range strangers {
		s.Discover(t, mac, "")
	}
	for _, want := range []int{len(strangers), 0} {
		if n, err := s.DeleteDiscovered(ctx, "suite"); n != want || err != nil {
			t.Errorf("DeleteDiscovered() = %d, %v, want %d", n, err, want)
		}
	}
	if all := s.Machines(); len(all) != 1 || all[0].Name != "web1" {
		t.Errorf("machines %+v are left, want web1 alone", all)
	}
	s.Discover(t, strangers[0], "") // it boots again
	if _, err := s.Machine(string(strangers[0])); err != nil {
		t.Error(err)
	}
}

// suiteBMCs asks BMCs, also one that nobody has accepted.
func suiteBMCs(t *testing.T, s Subject) {
	ctx := t.Context()
	m := s.discovered(t, suiteMAC, suiteBMC)
	s.add(t, deploy.NewMachine{Name: "none", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	for ref, says := range map[string]string{m.Name: "BMC " + suiteBMC + " was reported by the agent and not accepted", "none": "no BMC address is known"} {
		_, err := s.Power(ctx, "suite", ref, power.ActOn)
		fails(t, "power on", err, inventory.CodeBMC, says)
		_, err = s.PowerStatus(ctx, ref)
		fails(t, "power status", err, inventory.CodeBMC, says)
		_, err = s.BootDevice(ctx, ref)
		fails(t, "boot device", err, inventory.CodeBMC, says)
		_, err = s.SetBootDevice(ctx, "suite", ref, power.Boot{Device: power.DevicePXE})
		fails(t, "set boot device", err, inventory.CodeBMC, says)
		fails(t, "console", s.Console(ctx, "suite", ref, strings.NewReader(""), io.Discard), inventory.CodeBMC, says)
	}
	if _, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []power.Action{power.ActOn, power.ActOff, power.ActOn} {
		if p, err := s.Power(ctx, "suite", m.Name, a); err != nil || !p.Known || p.On != (a == power.ActOn) {
			t.Errorf("power %s: %+v, %v", a, p, err)
		}
	}
	if p, err := s.PowerStatus(ctx, m.Name); err != nil || !p.On {
		t.Errorf("power status: %+v, %v, want on", p, err)
	}
	want := power.Boot{Device: power.DeviceDisk, Persistent: true}
	if b, err := s.SetBootDevice(ctx, "suite", m.Name, want); err != nil || b.Device != want.Device || !b.Persistent {
		t.Errorf("set boot device: %+v, %v", b, err)
	}
	if b, err := s.BootDevice(ctx, m.Name); err != nil || b.Device != want.Device {
		t.Errorf("boot device: %+v, %v", b, err)
	}
}

func suiteDeploy(t *testing.T, s Subject) {
	ctx, request := t.Context(), inventory.DeployRequest{Image: image}
	refused := func(what, ref, says string) {
		t.Helper()
		_, err := s.Deploy(ctx, "suite", ref, request)
		fails(t, "deploy of "+what, err, inventory.CodeConflict, says)
		if p, err := s.Plan(ref, request); err != nil || p.Refused == nil || p.Refused.Code != inventory.CodeConflict || !strings.Contains(p.Refused.Detail, says) {
			t.Errorf("plan of %s: %+v, %v, want it refused: %q", what, p.Refused, err, says)
		}
	}
	s.Hold()
	m := s.discovered(t, suiteMAC, suiteBMC)
	refused("a stranger", m.Name, "is not approved")
	s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	refused("one that was never inspected", "web1", "was never inspected")
	_, err := s.Deployment(m.Name)
	fails(t, "the deployment of a machine that has none", err, inventory.CodeNotFound, m.Name)

	if _, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil {
		t.Fatal(err)
	}
	m = s.until(t, m.Name, inventory.Available)
	_, err = s.Release(ctx, "suite", m.Name, inventory.EraseRequest{})
	fails(t, "release of one without a system", err, inventory.CodeConflict, "nothing to release")
	reason, over := "new fan", ""
	if _, err := s.EditMachine(ctx, "suite", m.Name, deploy.Edit{Maintenance: &reason}); err != nil {
		t.Fatal(err)
	}
	refused("one in maintenance", m.Name, "is in maintenance: new fan")
	if _, err := s.EditMachine(ctx, "suite", m.Name, deploy.Edit{Maintenance: &over}); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]inventory.DeployRequest{
		"hostname": {Image: image, Hostname: "Bad Name"}, "mode": {Image: image, Mode: "quick"}, "verify": {Image: image, Verify: "no"},
	} {
		_, err := s.Deploy(ctx, "suite", m.Name, bad)
		fails(t, "a bad "+what, err, inventory.CodeInvalid, what)
	}

	d, err := s.Deploy(ctx, "suite", m.Name, request)
	if err != nil || d.ID == "" || d.Machine != m.ID || d.ImageName != image || d.Hostname != m.Name || d.Outcome != inventory.Running || d.Actor != "suite" {
		t.Fatalf("deploy: %+v, %v", d, err)
	}
	for _, ref := range []string{string(d.ID), m.Name, string(m.ID), string(suiteMAC)} {
		if found, err := s.Deployment(ref); err != nil || found.ID != d.ID {
			t.Errorf("Deployment(%q) = %s, %v, want %s", ref, found.ID, err, d.ID)
		}
	}
	refused("one that is being deployed", m.Name, "is being deployed already ("+string(d.ID))
	_, err = s.Clean(ctx, "suite", m.Name, inventory.EraseRequest{})
	fails(t, "clean of one that is being deployed", err, inventory.CodeConflict, "is being deployed already")
	_, err = s.Power(ctx, "suite", m.Name, power.ActOff)
	fails(t, "power of one that is being deployed", err, inventory.CodeConflict, "is being deployed")
	if ended, err := s.CancelDeployment(ctx, "suite", d.ID); err != nil || ended.Outcome != inventory.Cancelled {
		t.Errorf("cancel: %+v, %v", ended, err)
	}
	s.until(t, m.Name, inventory.Available) // nothing was touched
	_, err = s.CancelDeployment(ctx, "suite", d.ID)
	fails(t, "cancel twice", err, inventory.CodeConflict, string(d.ID))

	_, err = s.Retry(ctx, "suite", string(d.ID))
	fails(t, "retry of a cancelled one", err, inventory.CodeConflict, string(d.ID)+", which was cancelled")
	_, err = s.Retry(ctx, "suite", "d-none")
	fails(t, "retry of none", err, inventory.CodeNotFound, "d-none")

	// Deleting works in the middle, and takes the deployments along.
	if d, err = s.Deploy(ctx, "suite", m.Name, request); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Machine(m.Name); err != nil || m.Image != image {
		t.Errorf("the image of a machine that is being deployed: %q, %v, want %q", m.Image, err, image)
	}
	all, more, err := s.Deployments(deploy.DeploymentQuery{Limit: 10})
	if err != nil || more || len(all) != 2 || all[0].ID != d.ID {
		t.Fatalf("Deployments() = %v, %v, %v, want two, the newest first, and no more", all, more, err)
	}
	for what, c := range map[string]struct {
		q    deploy.DeploymentQuery
		want []inventory.DeploymentID
		more bool
	}{
		"a page":              {deploy.DeploymentQuery{Limit: 1}, []inventory.DeploymentID{d.ID}, true},
		"the next page":       {deploy.DeploymentQuery{Limit: 1, Before: d.ID}, []inventory.DeploymentID{all[1].ID}, false},
		"of the machine":      {deploy.DeploymentQuery{Limit: 9, Machine: string(suiteMAC)}, []inventory.DeploymentID{d.ID, all[1].ID}, false},
		"of another":          {deploy.DeploymentQuery{Limit: 9, Machine: "web1"}, nil, false},
		"those that run":      {deploy.DeploymentQuery{Limit: 9, Running: true}, []inventory.DeploymentID{d.ID}, false},
		"older ones that run": {deploy.DeploymentQuery{Limit: 9, Running: true, Before: d.ID}, nil, false},
	} {
		list, more, err := s.Deployments(c.q)
		var ids []inventory.DeploymentID
		for _, d := range list {
			ids = append(ids, d.ID)
		}
		if err != nil || more != c.more || !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, more %v, %v; want %v, more %v", what, ids, more, err, c.want, c.more)
		}
	}
	_, _, err = s.Deployments(deploy.DeploymentQuery{Limit: 9, Before: "d-none"})
	fails(t, "a page after one that is not there", err, inventory.CodeNotFound, "d-none")
	_, _, err = s.Deployments(deploy.DeploymentQuery{Limit: 9, Machine: "nobody"})
	fails(t, "the deployments of no machine", err, inventory.CodeNotFound, "nobody")
	_, _, err = s.Deployments(deploy.DeploymentQuery{Limit: 501})
	fails(t, "a page too long", err, inventory.CodeInvalid, "501")
	if err := s.DeleteMachine(context.WithoutCancel(ctx), "suite", m.Name); err != nil {
		t.Fatal(err)
	}
	_, err = s.Deployment(string(d.ID))
	fails(t, "the deployment of a machine that is gone", err, inventory.CodeNotFound, string(d.ID))
}
