package apitest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A Subject is a fleet that the suite tests, with the events that no operator causes.
type Subject struct {
	api.Fleet
	// Discover lets a machine register itself and report its BMC at that address; "" when it has none. It
	// returns when that is recorded.
	Discover func(t *testing.T, mac inventory.MAC, bmc string)
	// Hold keeps runs at their first step from now on, and BMCs from answering the engine's own readings.
	Hold func()
}

const (
	suiteMAC = inventory.MAC("52:54:00:00:00:01")
	suiteBMC = "192.0.2.51"
	image    = "debian-12" // every fleet has this image
)

// RunFleetSuite tests what is true of every fleet: the engine's, and the one that stands in for it in tests.
func RunFleetSuite(t *testing.T, newFleet func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"add": suiteAdd, "refs": suiteRefs, "unknown": suiteUnknown, "names": suiteNames,
		"approve": suiteApprove, "approve with a BMC": suiteApproveBMC,
		"edit": suiteEdit, "accept a BMC": suiteAcceptBMC, "delete": suiteDelete,
		"delete all strangers": suiteDeleteDiscovered, "BMC": suiteBMCs, "deploy": suiteDeploy,
	} {
		t.Run(name, func(t *testing.T) { test(t, newFleet(t)) })
	}
}

// fails checks the code of an error, and that its text contains says.
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

// suiteUnknown asks everything about a machine that is not there.
func suiteUnknown(t *testing.T, s Subject) {
	ctx := t.Context()
	for _, ref := range []string{"nobody", "m-0badcafe", "52:54:00:00:00:99", ""} {
		for what, ask := range map[string]func() error{
			"Machine": func() error { _, err := s.Machine(ref); return err },
			"EditMachine": func() error {
				_, err := s.EditMachine(ctx, "suite", ref, deploy.Edit{})
				return err
			},
			"DeleteMachine": func() error { return s.DeleteMachine(ctx, "suite", ref) },
			"Approve": func() error {
				_, err := s.Approve(ctx, "suite", ref, deploy.Approval{})
				return err
			},
			"Deploy": func() error {
				_, err := s.Deploy(ctx, "suite", ref, inventory.DeployRequest{Image: image})
				return err
			},
			"Plan": func() error {
				_, err := s.Plan(ref, inventory.DeployRequest{Image: image})
				return err
			},
			"Release": func() error {
				_, err := s.Release(ctx, "suite", ref, inventory.EraseRequest{})
				return err
			},
			"Clean": func() error {
				_, err := s.Clean(ctx, "suite", ref, inventory.EraseRequest{})
				return err
			},
			"Deployment": func() error { _, err := s.Deployment(ref); return err },
			"CancelDeployment": func() error {
				_, err := s.CancelDeployment(ctx, "suite", inventory.DeploymentID(ref))
				return err
			},
			"Power":       func() error { _, err := s.Power(ctx, "suite", ref, power.ActOn); return err },
			"PowerStatus": func() error { _, err := s.PowerStatus(ctx, ref); return err },
			"Boot":        func() error { _, err := s.BootDevice(ctx, ref); return err },
			"SetBootDevice": func() error {
				_, err := s.SetBootDevice(ctx, "suite", ref, power.Boot{Device: power.DevicePXE})
				return err
			},
			"Console": func() error {
				return s.Console(ctx, "suite", ref, strings.NewReader(""), io.Discard)
			},
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
	if found, more, err := s.Erasures(deploy.ErasureQuery{Of: "nobody", Limit: 9}); err != nil || more ||
		len(found) != 0 {
		t.Errorf("Erasures = %v, %v, want none", found, err)
	}
}

// suiteBMCs asks BMCs, also one that nobody has accepted.
func suiteBMCs(t *testing.T, s Subject) {
	ctx := t.Context()
	m := s.discovered(t, suiteMAC, suiteBMC)
	s.add(t, deploy.NewMachine{Name: "none", MACs: []inventory.MAC{"52:54:00:00:00:02"}})
	for ref, says := range map[string]string{m.Name: "BMC " + suiteBMC +
		" was reported by the agent and not accepted", "none": "no BMC address is known"} {
		_, err := s.Power(ctx, "suite", ref, power.ActOn)
		fails(t, "power on", err, inventory.CodeBMC, says)
		_, err = s.PowerStatus(ctx, ref)
		fails(t, "power status", err, inventory.CodeBMC, says)
		_, err = s.BootDevice(ctx, ref)
		fails(t, "boot device", err, inventory.CodeBMC, says)
		_, err = s.SetBootDevice(ctx, "suite", ref, power.Boot{Device: power.DevicePXE})
		fails(t, "set boot device", err, inventory.CodeBMC, says)
		fails(t, "console", s.Console(ctx, "suite", ref, strings.NewReader(""), io.Discard),
			inventory.CodeBMC, says)
	}
	if _, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: new(suiteBMC)}); err != nil {
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
	if b, err := s.SetBootDevice(ctx, "suite", m.Name, want); err != nil || b.Device != want.Device ||
		!b.Persistent {
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
		if p, err := s.Plan(ref, request); err != nil || p.Refused == nil ||
			p.Refused.Code != inventory.CodeConflict || !strings.Contains(p.Refused.Detail, says) {
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

	if _, err := s.Approve(ctx, "suite", m.Name, deploy.Approval{BMC: new(suiteBMC)}); err != nil {
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
		"hostname": {Image: image, Hostname: "Bad Name"}, "mode": {Image: image, Mode: "quick"},
		"verify": {Image: image, Verify: "no"},
	} {
		_, err := s.Deploy(ctx, "suite", m.Name, bad)
		fails(t, "a bad "+what, err, inventory.CodeInvalid, what)
	}

	d, err := s.Deploy(ctx, "suite", m.Name, request)
	if err != nil || d.ID == "" || d.Machine != m.ID || d.ImageName != image || d.Hostname != m.Name ||
		d.Outcome != inventory.Running || d.Actor != "suite" {
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
	if ended, err := s.CancelDeployment(ctx, "suite", d.ID); err != nil ||
		ended.Outcome != inventory.Cancelled {
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
		"a page": {deploy.DeploymentQuery{Limit: 1}, []inventory.DeploymentID{d.ID}, true},
		"the next page": {
			deploy.DeploymentQuery{Limit: 1, Before: d.ID}, []inventory.DeploymentID{all[1].ID}, false,
		},
		"of the machine": {
			deploy.DeploymentQuery{Limit: 9, Machine: string(suiteMAC)},
			[]inventory.DeploymentID{d.ID, all[1].ID},
			false,
		},
		"of another": {deploy.DeploymentQuery{Limit: 9, Machine: "web1"}, nil, false},
		"those that run": {
			deploy.DeploymentQuery{Limit: 9, Running: true}, []inventory.DeploymentID{d.ID}, false,
		},
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
