package apitest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func suiteAdd(t *testing.T, s Subject) {
	bmc, user, password := "[::ffff:192.0.2.7]:623", "root", "hunter2"
	disk := inventory.DiskHint{Serial: "S1"}
	m := s.add(t, deploy.NewMachine{
		Name:   "web1",
		MACs:   []inventory.MAC{"52-54-00-AA-BB-01"},
		UUID:   "4C4C4544-0000-1000-8000-000000000001",
		Labels: map[string]string{"rack": "a"},
		BMC:    deploy.BMCEdit{Address: &bmc, User: &user, Password: &password}, RootDisk: &disk,
	})
	if m.ID == "" || m.Name != "web1" || m.State != inventory.Enrolled ||
		!cmp.Equal(m.MACs, []inventory.MAC{"52:54:00:aa:bb:01"}) ||
		m.UUID != "4c4c4544-0000-1000-8000-000000000001" || m.Labels["rack"] != "a" || m.RootDisk == nil ||
		m.RootDisk.Serial != "S1" || m.CreatedAt.IsZero() {
		t.Errorf("added: %+v", m)
	}
	if m.BMC.Address != "192.0.2.7" || m.BMC.User != "root" || len(m.BMC.Password) == 0 ||
		string(m.BMC.Password) == password || m.BMC.Discovered {
		t.Errorf("its BMC: %+v, want the canonical address and a sealed password", m.BMC)
	}
	if other := s.add(t, deploy.NewMachine{UUID: "4c4c4544-0000-1000-8000-000000000002"}); other.Name == "" ||
		other.ID == m.ID {
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
		"a BMC alone": {
			deploy.NewMachine{Name: "x", BMC: address("192.0.2.8")}, inventory.CodeInvalid, "MAC or a UUID",
		},
		"a multicast MAC": {
			deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"01:00:5e:00:00:01"}},
			inventory.CodeInvalid,
			"multicast",
		},
		"no MAC": {
			deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"web"}}, inventory.CodeInvalid, `"web"`,
		},
		"no BMC address": {
			deploy.NewMachine{Name: "x", MACs: mac, BMC: address("bmc.example")},
			inventory.CodeInvalid,
			"bmc.example",
		},
		"no UUID": {
			deploy.NewMachine{Name: "x", UUID: "1234"}, inventory.CodeInvalid, `UUID "1234"`,
		},
		"a loopback BMC": {
			deploy.NewMachine{Name: "x", MACs: mac, BMC: address("127.0.0.1")},
			inventory.CodeInvalid,
			"BMC 127.0.0.1: it is a loopback address",
		},
		"an empty password": {
			deploy.NewMachine{Name: "x", MACs: mac, BMC: deploy.BMCEdit{Password: new(string)}},
			inventory.CodeInvalid, "password is empty",
		},
		"a taken name": {
			deploy.NewMachine{Name: "web1", MACs: mac},
			inventory.CodeConflict,
			"there is a machine called web1 already",
		},
		"a taken MAC": {
			deploy.NewMachine{Name: "x", MACs: []inventory.MAC{"5254.00aa.bb01"}},
			inventory.CodeConflict,
			"52:54:00:aa:bb:01 is web1's",
		},
		"a taken BMC": {
			deploy.NewMachine{Name: "x", MACs: mac, BMC: address("192.0.2.7:623")},
			inventory.CodeConflict,
			"BMC 192.0.2.7 is web1's",
		},
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
		"Web": "a computer cannot be called that", "a.b": "a computer cannot be called that",
		"-a": "a computer cannot be called that", "a b": "a computer cannot be called that",
		strings.Repeat("a", 64): "a computer cannot be called that",
		"m-0badcafe":            "looks like an id", "d-00000001": "looks like an id",
		"e-00000001":   "looks like an id",
		"525400000001": "looks like a MAC", "52-54-00-00-00-01": "looks like a MAC",
		"01-52-54-00-00-00-01":                 "looks like a MAC",
		"4c4c4544-0000-1000-8000-000000000001": "looks like a UUID",
	} {
		_, err := s.AddMachine(t.Context(), "suite", deploy.NewMachine{
			Name: name, MACs: []inventory.MAC{"52:54:00:00:00:02"},
		})
		fails(t, "add "+name, err, inventory.CodeInvalid, says)
		_, err = s.EditMachine(t.Context(), "suite", "web1", deploy.Edit{Name: &name})
		fails(t, "rename to "+name, err, inventory.CodeInvalid, says)
	}
	_, err := s.EditMachine(t.Context(), "suite", "web1", deploy.Edit{Name: new(string)})
	fails(t, "rename to nothing", err, inventory.CodeInvalid, "a computer cannot be called that")
	for _, name := range []string{"m-0badcaf", "m-0badcafg", "d-1", "m000001", "cafe", "52540000000"} {
		if m, err := s.EditMachine(t.Context(), "suite", string(suiteMAC),
			deploy.Edit{Name: &name}); err != nil || m.Name != name {
			t.Errorf("rename to %s: %s, %v", name, m.Name, err)
		}
	}
}

func suiteRefs(t *testing.T, s Subject) {
	b := s.add(t, deploy.NewMachine{Name: "b", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	a := s.add(t, deploy.NewMachine{Name: "a", MACs: []inventory.MAC{suiteMAC, "52:54:00:00:00:03"}})
	for _, ref := range []string{
		"a", string(a.ID), "52:54:00:00:00:01", "52-54-00-00-00-01", "525400000001",
		"01-52-54-00-00-00-01", "52:54:00:00:00:03",
	} {
		if m, err := s.Machine(ref); err != nil || m.ID != a.ID {
			t.Errorf("Machine(%q) = %s, %v, want a", ref, m.Name, err)
		}
	}
	all := s.Machines()
	if len(all) != 2 || all[0].ID != a.ID || all[1].ID != b.ID {
		t.Errorf("Machines() = %v, want a and b by name", all)
	}
}

func suiteApprove(t *testing.T, s Subject) {
	m := s.discovered(t, suiteMAC, "")
	if m.State != inventory.Discovered || m.BMC.Address != "" || m.BMC.Proposed != nil {
		t.Fatalf("a machine that registered itself: %s, %+v", m.State, m.BMC)
	}
	ctx := t.Context()
	if m, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil ||
		m.State == inventory.Discovered {
		t.Fatalf("approve: %s, %v", m.State, err)
	}
	m = s.until(t, m.Name, inventory.Available) // it has reported
	if again, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{}); err != nil ||
		again.State != inventory.Available {
		t.Errorf("approve twice: %s, %v, want no mistake and no change", again.State, err)
	}
	added := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	if again, err := s.Approve(ctx, "suite", "web1", deploy.Approval{}); err != nil ||
		again.State != added.State {
		t.Errorf("approve of one that was added: %s, %v, want no mistake and no change", again.State, err)
	}
}

func suiteApproveBMC(t *testing.T, s Subject) {
	ctx := t.Context()
	m := s.discovered(t, suiteMAC, suiteBMC)
	if m.BMC.Address != "" || m.BMC.Proposed == nil || m.BMC.Proposed.Address != suiteBMC ||
		m.BMC.Proposed.At.IsZero() {
		t.Fatalf("a reported BMC: %+v, want it proposed", m.BMC)
	}
	other := "192.0.2.99"
	_, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &other})
	fails(t, "approve with another BMC", err, inventory.CodeConflict, other)
	if now, _ := s.Machine(m.Name); now.State != inventory.Discovered {
		t.Errorf("after a refused approval the machine is %s", now.State)
	}
	seen := suiteBMC
	if m, err = s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &seen}); err != nil ||
		m.BMC.Address != seen || !m.BMC.Discovered || m.BMC.Proposed != nil {
		t.Errorf("approve: %+v, %v, want the BMC accepted", m.BMC, err)
	}
	second := s.discovered(t, "52:54:00:00:00:02", "192.0.2.52")
	none := ""
	if second, err = s.Approve(ctx, "suite", second.Name, deploy.Approval{BMC: &none}); err != nil ||
		second.BMC.Address != "" || second.BMC.Proposed == nil {
		t.Errorf("approve without a BMC: %+v, %v, want it proposed still", second.BMC, err)
	}
	third := s.discovered(t, "52:54:00:00:00:03", "192.0.2.53")
	_, err = s.Approve(ctx, "suite", third.Name, deploy.Approval{})
	fails(t, "approve of whatever is reported", err, inventory.CodeConflict, "192.0.2.53")
	if now, _ := s.Machine(third.Name); now.State != inventory.Discovered || now.BMC.Address != "" {
		t.Errorf("after a refused approval the machine is %s, %+v", now.State, now.BMC)
	}
	_, err = s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &other})
	fails(t, "approve of one that is approved with another BMC", err, inventory.CodeConflict, suiteBMC)
	if again, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: &seen}); err != nil ||
		again.BMC.Address != seen {
		t.Errorf("approve twice: %+v, %v, want no mistake", again.BMC, err)
	}
	fourth, taken := s.discovered(t, "52:54:00:00:00:04", "192.0.2.54"), "192.0.2.54"
	s.add(t, deploy.NewMachine{
		Name: "web1", UUID: "4c4c4544-0000-1000-8000-000000000001", BMC: deploy.BMCEdit{Address: &taken},
	})
	_, err = s.Approve(ctx, "suite", fourth.Name, deploy.Approval{BMC: &taken})
	fails(t, "approve with a BMC that is another's by now", err, inventory.CodeConflict,
		"BMC 192.0.2.54 is web1's")
}

func suiteEdit(t *testing.T, s Subject) {
	ctx := t.Context()
	// A reading between an edit and the look at the machine would be a difference that no edit made.
	s.Hold()
	s.add(t, deploy.NewMachine{
		Name: "web1", MACs: []inventory.MAC{suiteMAC}, Labels: map[string]string{"rack": "a", "old": "yes"},
	})
	s.add(t, deploy.NewMachine{Name: "web2", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	edit := func(e deploy.Edit) inventory.Machine {
		t.Helper()
		m, err := s.EditMachine(ctx, "suite", string(suiteMAC), e)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := s.Machine(string(suiteMAC))
		if err != nil || !cmp.Equal(m, stored) {
			t.Errorf("the answer of an edit differs from the machine: %v\n%s", err, cmp.Diff(stored, m))
		}
		return m
	}
	text := func(s string) *string { return &s }
	if m := edit(deploy.Edit{Labels: map[string]*string{
		"rack": text("b"), "old": nil,
		"none": nil,
	}}); !cmp.Equal(m.Labels, map[string]string{"rack": "b"}) {
		t.Errorf("labels = %v", m.Labels)
	}
	disk := inventory.DiskHint{Serial: "S1"}
	if m := edit(deploy.Edit{RootDisk: &disk}); m.RootDisk == nil || m.RootDisk.Serial != "S1" ||
		m.Labels["rack"] != "b" {
		t.Errorf("root disk = %v, labels %v", m.RootDisk, m.Labels)
	}
	if m := edit(deploy.Edit{RootDisk: &inventory.DiskHint{}}); m.RootDisk != nil {
		t.Errorf("root disk = %v, want it cleared", m.RootDisk)
	}
	if m := edit(deploy.Edit{Maintenance: text("new fan")}); m.Maintenance == nil ||
		m.Maintenance.Reason != "new fan" || m.Maintenance.Actor != "suite" || m.Maintenance.Since.IsZero() {
		t.Errorf("maintenance = %+v", m.Maintenance)
	}
	if m := edit(deploy.Edit{Maintenance: text("")}); m.Maintenance != nil {
		t.Errorf("maintenance = %+v, want it over", m.Maintenance)
	}
	m := edit(deploy.Edit{
		BMC: deploy.BMCEdit{Address: text("192.0.2.7:623"), User: text("root"), Password: text("hunter2")},
	})
	if m.BMC.Address != "192.0.2.7" || m.BMC.User != "root" || len(m.BMC.Password) == 0 ||
		string(m.BMC.Password) == "hunter2" {
		t.Errorf("BMC = %+v", m.BMC)
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{Kg: text("0x00ff")}}); len(m.BMC.Kg) == 0 ||
		string(m.BMC.Kg) == "\x00\xff" || string(m.BMC.Kg) == "0x00ff" || len(m.BMC.Password) == 0 {
		t.Errorf("BMC = %+v, want its key beside the rest, sealed", m.BMC)
	}
	for _, key := range []string{
		"0x0", "0xzz", "0x" + strings.Repeat("00", 20),
		"0x" + strings.Repeat("a1", 21), "more than twenty bytes",
	} {
		_, err := s.EditMachine(ctx, "suite", "web1", deploy.Edit{BMC: deploy.BMCEdit{Kg: &key}})
		fails(t, "a key that no BMC has", err, inventory.CodeInvalid, "BMC key K_g: ")
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{Kg: text("")}}); len(m.BMC.Kg) != 0 {
		t.Errorf("BMC = %+v, want no key", m.BMC)
	}
	if m := edit(deploy.Edit{BMC: deploy.BMCEdit{
		Address: text(""), User: text(""),
		Password: text(""),
	}}); m.BMC.Address != "" || m.BMC.User != "" || len(m.BMC.Password) != 0 {
		t.Errorf("BMC = %+v, want nothing", m.BMC)
	}
	if m := edit(deploy.Edit{Name: text("web1")}); m.Name != "web1" {
		t.Errorf("renamed to its own name: %s", m.Name)
	}
	_, err := s.EditMachine(ctx, "suite", "web1", deploy.Edit{
		Name: text("web2"), Labels: map[string]*string{"rack": text("c")},
	})
	fails(t, "a taken name", err, inventory.CodeConflict, "there is a machine called web2 already")
	_, err = s.EditMachine(ctx, "suite", "web1", deploy.Edit{
		BMC: deploy.BMCEdit{Address: text("bmc.example")}, Labels: map[string]*string{"rack": text("c")},
	})
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
	fails(t, "another one than is reported", err, inventory.CodeConflict, seen)
	_, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &none})
	fails(t, "none", err, inventory.CodeConflict, m.Name)
	_, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{
		AcceptBMC: &seen, BMC: deploy.BMCEdit{Address: &other},
	})
	fails(t, "accepted and given", err, inventory.CodeInvalid, "accepted")
	for range 2 {
		if m, err = s.EditMachine(ctx, "suite", m.Name, deploy.Edit{AcceptBMC: &seen}); err != nil ||
			m.BMC.Address != seen || !m.BMC.Discovered || m.BMC.Proposed != nil {
			t.Errorf("accepted: %+v, %v", m.BMC, err)
		}
	}
	added := s.add(t, deploy.NewMachine{Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	_, err = s.EditMachine(ctx, "suite", "web1", deploy.Edit{AcceptBMC: &seen})
	fails(t, "of a machine that reported none", err, inventory.CodeConflict, added.Name)
}

func suiteDelete(t *testing.T, s Subject) {
	ctx, bmc := t.Context(), "192.0.2.7"
	m := s.add(t, deploy.NewMachine{
		Name: "web1", MACs: []inventory.MAC{suiteMAC}, BMC: deploy.BMCEdit{Address: &bmc},
	})
	if err := s.DeleteMachine(ctx, "suite", "web1"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"web1", string(m.ID), string(suiteMAC)} {
		_, err := s.Machine(ref)
		fails(t, "a machine that is gone", err, inventory.CodeNotFound, ref)
		fails(t, "delete twice", s.DeleteMachine(ctx, "suite", ref), inventory.CodeNotFound, ref)
	}
	// Its name, MAC and BMC are free again; its id is not.
	if again := s.add(t,
		deploy.NewMachine{
			Name: "web1", MACs: []inventory.MAC{suiteMAC},
			BMC: deploy.BMCEdit{Address: &bmc},
		}); again.ID == m.ID {
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
