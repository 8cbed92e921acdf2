// Package apitest is a fleet of machines that exist only in memory, for tests of the API and of the CLI. It
// answers as deploy.Engine does and keeps the same rules about refs and names, but no machine is behind it:
// power is a boolean, and a deployment moves one step on each time that somebody looks.
package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// Epoch is when everything in the fleet happens.
var Epoch = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// Fleet satisfies api.Fleet.
type Fleet struct {
	mu          sync.Mutex
	machines    []inventory.Machine
	added       int                    // machines so far, also those that are gone
	deployments []inventory.Deployment // oldest first
	erased      []inventory.Erasure    // oldest first
	requests    map[inventory.DeploymentID]inventory.DeployRequest
	boot        map[inventory.MachineID]power.Boot
	events      []inventory.Event
	grown       chan struct{}
	errs        map[string]error
	actors      []string
	walk        bool
	failAt      map[string]inventory.Failure // by machine name
}

// New makes a fleet of these machines. Fields that a machine must have are filled in.
func New(machines ...inventory.Machine) *Fleet {
	f := &Fleet{
		requests: map[inventory.DeploymentID]inventory.DeployRequest{},
		boot:     map[inventory.MachineID]power.Boot{},
		grown:    make(chan struct{}),
		errs:     map[string]error{},
		walk:     true,
		failAt:   map[string]inventory.Failure{},
	}
	for i, m := range machines {
		if m.ID == "" {
			m.ID = inventory.MachineID(fmt.Sprintf("m-%08x", i+1))
		}
		if m.MACs == nil {
			m.MACs = []inventory.MAC{inventory.MAC(fmt.Sprintf("52:54:00:00:00:%02x", i+1))}
		}
		if m.State == "" {
			m.State = inventory.Available
		}
		if m.CreatedAt.IsZero() {
			m.CreatedAt, m.ChangedAt = Epoch, Epoch
		}
		f.machines = append(f.machines, m)
		f.added++
	}
	return f
}

// Fail makes the method of that name return err from now on; nil ends that.
func (f *Fleet) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs[method] = err
}

// FailDeployment makes deployments of the machine fail at failure.Step.
func (f *Fleet) FailDeployment(machine string, failure inventory.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt[machine] = failure
}

// Erase adds records of disks that were erased.
func (f *Fleet) Erase(records ...inventory.Erasure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eraseLocked(records)
}

func (f *Fleet) eraseLocked(records []inventory.Erasure) {
	for _, r := range records {
		r.Seq = uint64(len(f.erased) + 1)
		f.erased = append(f.erased, r)
	}
}

// Halt keeps deployments at their step, and Walk lets them go on.
func (f *Fleet) Halt() { f.setWalk(false) }
func (f *Fleet) Walk() { f.setWalk(true) }

func (f *Fleet) setWalk(walk bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walk = walk
}

// Actors lists who changed something, in order.
func (f *Fleet) Actors() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.actors)
}

// Request returns the request that a deployment began with.
func (f *Fleet) Request(id inventory.DeploymentID) inventory.DeployRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[id]
}

func (f *Fleet) findLocked(method, ref string) (*inventory.Machine, error) {
	if err := f.errs[method]; err != nil {
		return nil, err
	}
	if i, ok := inventory.Find(f.machines, ref); ok {
		return &f.machines[i], nil
	}
	return nil, &inventory.Problem{
		Code:   inventory.CodeNotFound,
		Detail: fmt.Sprintf("no machine %q", ref),
		Hint:   "run `pxectl machine list`",
	}
}

func (f *Fleet) change(
	method, actor, ref string, do func(*inventory.Machine) error,
) (inventory.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked(method, ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	f.actors = append(f.actors, actor)
	if err := do(m); err != nil {
		return inventory.Machine{}, err
	}
	return *m, nil
}

func (f *Fleet) Machines() []inventory.Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.machines)
	for i, m := range out {
		out[i] = f.shownLocked(m)
	}
	slices.SortFunc(out, func(a, b inventory.Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (f *Fleet) Machine(ref string) (inventory.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked("Machine", ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return f.shownLocked(*m), nil
}

func (f *Fleet) AddMachine(_ context.Context, actor string, n deploy.NewMachine) (inventory.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.errs["AddMachine"]; err != nil {
		return inventory.Machine{}, err
	}
	f.actors = append(f.actors, actor)
	m, err := n.Machine(seal)
	if err != nil {
		return m, err
	}
	f.added++
	m.ID, m.CreatedAt, m.ChangedAt = inventory.MachineID(fmt.Sprintf("m-%08x", f.added)), Epoch, Epoch
	if m.Name == "" {
		m.Name = string(m.ID)
	}
	if err := f.freeLocked(m); err != nil {
		return m, err
	}
	f.machines = append(f.machines, m)
	return m, nil
}

// seal does not encrypt. It only makes something else than the plain text.
func seal(plain []byte) (inventory.Sealed, error) {
	return append(inventory.Sealed("sealed "), plain...), nil
}

// freeLocked returns an error when another machine has the name, a MAC or the BMC of m.
func (f *Fleet) freeLocked(m inventory.Machine) error {
	for _, other := range f.machines {
		if other.ID == m.ID {
			continue
		}
		taken := ""
		if other.Name == m.Name {
			return &inventory.Problem{
				Code:   inventory.CodeConflict,
				Detail: "there is a machine called " + m.Name + " already",
				Hint:   "run `pxectl machine show " + other.Name + "`",
			}
		}
		switch mac := slices.IndexFunc(m.MACs,
			func(a inventory.MAC) bool { return slices.Contains(other.MACs, a) }); {
		case mac >= 0:
			taken = "MAC " + string(m.MACs[mac])
		case m.BMC.Address != "" && m.BMC.Address == other.BMC.Address:
			taken = "BMC " + m.BMC.Address
		default:
			continue
		}
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("machine %s: %s is %s's", m.Name, taken, other.Name),
			Hint:   "run `pxectl machine show " + other.Name + "`",
		}
	}
	return nil
}

// proposes returns an error unless the machine's agent reports the BMC at that address, or it is accepted
// already.
func proposes(m inventory.Machine, address string) error {
	p := m.BMC.Proposed
	if p == nil && m.BMC.Address == address && address != "" {
		return nil
	}
	if p != nil && p.Address != address {
		return &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: fmt.Sprintf("%s: the agent reports the BMC at %s now, and not at %q", m.Name, p.Address,
				address),
			Hint: "run `pxectl machine show " + m.Name + "`",
		}
	}
	if p == nil {
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("%s: BMC %q does not wait to be accepted", m.Name, address),
			Hint:   "run `pxectl machine show " + m.Name + "`",
		}
	}
	return nil
}

func (f *Fleet) EditMachine(_ context.Context, actor, ref string, e deploy.Edit) (inventory.Machine, error) {
	return f.change("EditMachine", actor, ref, func(m *inventory.Machine) error {
		if e.AcceptBMC != nil {
			if err := proposes(*m, *e.AcceptBMC); err != nil {
				return err
			}
		}
		next := *m
		if err := e.Apply(&next, actor, Epoch, seal); err != nil {
			return err
		}
		if err := f.freeLocked(next); err != nil {
			return err
		}
		*m = next
		return nil
	})
}

func (f *Fleet) DeleteMachine(_ context.Context, actor, ref string) error {
	_, err := f.change("DeleteMachine", actor, ref, func(m *inventory.Machine) error {
		id := m.ID
		f.deployments = slices.DeleteFunc(f.deployments,
			func(d inventory.Deployment) bool { return d.Machine == id })
		f.machines = slices.DeleteFunc(f.machines, func(m inventory.Machine) bool { return m.ID == id })
		return nil
	})
	return err
}

func (f *Fleet) DeleteDiscovered(_ context.Context, actor string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.errs["DeleteDiscovered"]; err != nil {
		return 0, err
	}
	f.actors = append(f.actors, actor)
	before := len(f.machines)
	f.machines = slices.DeleteFunc(f.machines,
		func(m inventory.Machine) bool { return m.State == inventory.Discovered })
	return before - len(f.machines), nil
}

func (f *Fleet) Approve(_ context.Context, actor, ref string, a deploy.Approval) (inventory.Machine, error) {
	return f.change("Approve", actor, ref, func(m *inventory.Machine) error {
		bmc, err := a.Accepts(*m)
		if err != nil || m.State != inventory.Discovered {
			return err
		}
		next := *m
		next.State = inventory.Enrolled
		if m.Report != nil {
			next.State = inventory.Available // its agent is there and has reported
		}
		if bmc != "" {
			if err := proposes(*m, bmc); err != nil {
				return err
			}
			next.BMC.Address, next.BMC.Discovered, next.BMC.Proposed = bmc, true, nil
		}
		if err := f.freeLocked(next); err != nil {
			return err
		}
		*m = next
		return nil
	})
}

// Discover makes a machine register itself, which reports its BMC at that address.
func (f *Fleet) Discover(mac inventory.MAC, bmc string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.added++
	m := inventory.Machine{
		ID:        inventory.MachineID(fmt.Sprintf("m-%08x", f.added)),
		State:     inventory.Discovered,
		MACs:      []inventory.MAC{mac},
		CreatedAt: Epoch,
		ChangedAt: Epoch,
	}
	m.Name = "m" + strings.ReplaceAll(string(mac), ":", "")[6:]
	m.Report, m.ReportedAt = &inventory.Report{Firmware: "uefi"}, Epoch
	if bmc != "" {
		m.BMC.Proposed = &inventory.BMCProposal{Address: bmc, At: Epoch}
	}
	f.machines = append(f.machines, m)
}

// Inspect makes an enrolled machine's agent report.
func (f *Fleet) Inspect(ref string, r inventory.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i, ok := inventory.Find(f.machines, ref); ok {
		f.machines[i].State, f.machines[i].Report, f.machines[i].ReportedAt = inventory.Available, &r, Epoch
	}
}

// Report makes a machine's agent report a BMC that nobody has accepted.
func (f *Fleet) Report(ref string, bmc inventory.BMCProposal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i, ok := inventory.Find(f.machines, ref); ok {
		f.machines[i].BMC.Proposed = &bmc
	}
}
