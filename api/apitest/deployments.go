package apitest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

// stepTime is how long each step of a deployment takes.
const stepTime = 12 * time.Second

// ImageBytes is the size of every image that is deployed.
const ImageBytes = 2 << 30

func (f *Fleet) Deploy(
	_ context.Context, actor, ref string, r inventory.DeployRequest,
) (inventory.Deployment, error) {
	var d inventory.Deployment
	_, err := f.change("Deploy", actor, ref, func(m *inventory.Machine) error {
		if err := (deploy.Wish{Deploy: &r}).Refused(inspected(*m), f.lastLocked(*m)); err != nil {
			return err
		}
		d = inventory.Deployment{
			ID:      inventory.DeploymentID(fmt.Sprintf("d-%08x", len(f.deployments)+1)),
			Machine: m.ID,
			Actor:   actor,
			ImageID: "0123456789abcdef", ImageName: r.Image, Hostname: r.Hostname,
			Secret: inventory.Sealed("a secret"), DiskHint: r.Disk,
			CreatedAt: Epoch, Outcome: inventory.Running, Step: inventory.Validate, From: m.State,
			History: []inventory.StepRecord{
				{Step: inventory.Validate, Attempt: 1, BeganAt: Epoch, Deadline: Epoch.Add(time.Hour)},
			},
		}
		if d.Hostname == "" {
			d.Hostname = m.Name
		}
		m.State, m.Deployment = inventory.Deploying, d.ID
		f.deployments = append(f.deployments, d)
		f.requests[d.ID] = r
		return nil
	})
	return d, err
}

// Retry starts a failed deployment again.
func (f *Fleet) Retry(ctx context.Context, actor, ref string) (inventory.Deployment, error) {
	f.mu.Lock()
	d, err := f.deploymentLocked(ref)
	if err != nil {
		f.mu.Unlock()
		return inventory.Deployment{}, err
	}
	failed, r := *d, f.requests[d.ID]
	if failed.Erase != nil && failed.Outcome == inventory.FailedOut {
		f.mu.Unlock()
		return f.Release(ctx, actor, string(failed.Machine), *failed.Erase)
	}
	if m, err := f.findLocked("Retry", string(failed.Machine)); err != nil {
		f.mu.Unlock()
		return inventory.Deployment{}, err
	} else if err := (deploy.Wish{Retry: &failed}).Refused(inspected(*m), f.lastLocked(*m)); err != nil {
		f.mu.Unlock()
		return inventory.Deployment{}, err
	}
	d.Secret = nil
	f.mu.Unlock()
	return f.Deploy(ctx, actor, string(failed.Machine), r)
}

// Plan takes the first disk that the machine has. A deployed machine needs Redeploy.
func (f *Fleet) Plan(ref string, r inventory.DeployRequest) (deploy.Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked("Plan", ref)
	if err != nil {
		return deploy.Plan{}, err
	}
	p := deploy.Plan{
		Machine: m.ID, MachineName: m.Name, ImageID: "0123456789abcdef", ImageName: r.Image,
		AtMost: ImageBytes / 4,
	}
	if m.Report != nil && len(m.Report.Disks) > 0 {
		p.Disk, p.Untouched = &m.Report.Disks[0], m.Report.Disks[1:]
	}
	if m.State == inventory.Deployed {
		p.Holds = m.Deployment
	}
	if err := (deploy.Wish{Deploy: &r}).Refused(inspected(*m), f.lastLocked(*m)); err != nil {
		refused := inventory.AsProblem(err)
		p.Refused = &deploy.Refusal{Code: refused.Code, Detail: refused.Detail, Hint: refused.Hint}
	}
	return p, nil
}

// Release erases one disk at the end of its run.
func (f *Fleet) Release(
	_ context.Context, actor, ref string, r inventory.EraseRequest,
) (inventory.Deployment, error) {
	return f.erase("Release", actor, ref, r, deploy.Wish{Release: true})
}

func (f *Fleet) Clean(
	_ context.Context, actor, ref string, r inventory.EraseRequest,
) (inventory.Deployment, error) {
	return f.erase("Clean", actor, ref, r, deploy.Wish{Clean: true})
}

func (f *Fleet) erase(
	method, actor, ref string, r inventory.EraseRequest, wish deploy.Wish,
) (inventory.Deployment, error) {
	var d inventory.Deployment
	_, err := f.change(method, actor, ref, func(m *inventory.Machine) error {
		if err := wish.Refused(inspected(*m), f.lastLocked(*m)); err != nil {
			return err
		}
		d = inventory.Deployment{
			ID: inventory.DeploymentID(fmt.Sprintf("e-%08x", len(f.deployments)+1)), Machine: m.ID,
			Actor: actor, Erase: &r, Hostname: m.Name,
			CreatedAt: Epoch, Outcome: inventory.Running, Step: inventory.Validate, From: m.State,
			History: []inventory.StepRecord{
				{Step: inventory.Validate, Attempt: 1, BeganAt: Epoch, Deadline: Epoch.Add(time.Hour)},
			},
		}
		m.State, m.Deployment = inventory.Cleaning, d.ID
		f.deployments = append(f.deployments, d)
		return nil
	})
	return d, err
}

// Erasures lists the disks of the erasing runs that have ended, and those that Erase added.
func (f *Fleet) Erasures(q deploy.ErasureQuery) (list []inventory.Erasure, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := q.Check(); err != nil {
		return nil, false, err
	}
	if err := f.errs["Erasures"]; err != nil {
		return nil, false, err
	}
	for _, r := range slices.Backward(f.erased) {
		if q.Before != 0 && r.Seq >= q.Before ||
			q.Of != "" && q.Of != r.MachineName && q.Of != string(r.Machine) && q.Of != r.Disk.Serial {
			continue
		}
		if len(list) == q.Limit {
			return list, true, nil
		}
		list = append(list, r)
	}
	return list, false, nil
}

func (f *Fleet) Deployments(q deploy.DeploymentQuery) (list []inventory.Deployment, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := q.Check(); err != nil {
		return nil, false, err
	}
	var of inventory.MachineID
	if q.Machine != "" {
		m, err := f.findLocked("Deployments", q.Machine)
		if err != nil {
			return nil, false, err
		}
		of = m.ID
	} else if err := f.errs["Deployments"]; err != nil {
		return nil, false, err
	}
	newest := slices.Clone(f.deployments)
	slices.Reverse(newest)
	if q.Before != "" {
		i := slices.IndexFunc(newest, func(d inventory.Deployment) bool { return d.ID == q.Before })
		if i < 0 {
			return nil, false, &inventory.Problem{
				Code:   inventory.CodeNotFound,
				Detail: fmt.Sprintf("no deployment %q", q.Before),
				Hint:   "list them from the beginning",
			}
		}
		newest = newest[i+1:]
	}
	for _, d := range newest {
		if of != "" && d.Machine != of || q.Running && d.Outcome != inventory.Running {
			continue
		}
		if len(list) == q.Limit {
			return list, true, nil
		}
		list = append(list, d)
	}
	return list, false, nil
}

// Deployment returns a deployment. A running one moves one step on, unless the fleet is halted.
func (f *Fleet) Deployment(ref string) (inventory.Deployment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.deploymentLocked(ref)
	if err != nil {
		return inventory.Deployment{}, err
	}
	if f.walk {
		f.advanceLocked(d)
	}
	now := *d
	now.History = slices.Clone(d.History)
	return now, nil
}

func (f *Fleet) deploymentLocked(ref string) (*inventory.Deployment, error) {
	id := inventory.DeploymentID(ref)
	if m, err := f.findLocked("Deployment", ref); err == nil {
		id = m.Deployment
	}
	for i := range f.deployments {
		if f.deployments[i].ID == id {
			return &f.deployments[i], nil
		}
	}
	return nil, &inventory.Problem{
		Code:   inventory.CodeNotFound,
		Detail: fmt.Sprintf("no deployment %q", ref),
		Hint:   "run `pxectl deployment list`",
	}
}

func (f *Fleet) advanceLocked(d *inventory.Deployment) {
	if d.Outcome != inventory.Running {
		return
	}
	m, err := f.findLocked("", string(d.Machine))
	if err != nil {
		return
	}
	record := &d.History[len(d.History)-1]
	record.EndedAt = record.BeganAt.Add(stepTime)
	if failure, ok := f.failAt[m.Name]; ok && failure.Step == string(d.Step) {
		failure.At = record.EndedAt
		record.Error = failure.Reason
		d.Outcome, d.EndedAt, d.Failure = inventory.FailedOut, record.EndedAt, &failure
		m.State, m.Failure = inventory.Failed, &failure
		return
	}
	record.Proof = string(d.Step) + " proved"
	walk, state := inventory.Steps, inventory.Deployed
	if d.Erase != nil {
		walk, state = inventory.EraseSteps, inventory.Available
	}
	next := slices.Index(walk, d.Step) + 1
	if next == len(walk) {
		d.Outcome, d.EndedAt = inventory.Succeeded, record.EndedAt
		m.State = state
		if d.Erase != nil {
			d.Erased = []inventory.Erasure{erasure(*m, *d, record.EndedAt)}
			f.eraseLocked(d.Erased)
		}
		return
	}
	d.Step = walk[next]
	d.History = append(d.History, inventory.StepRecord{
		Step: d.Step, Attempt: 1, BeganAt: record.EndedAt, Deadline: record.EndedAt.Add(time.Hour),
	})
}

func (f *Fleet) CancelDeployment(
	_ context.Context, actor string, id inventory.DeploymentID,
) (inventory.Deployment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.deploymentLocked(string(id))
	if err != nil {
		return inventory.Deployment{}, err
	}
	f.actors = append(f.actors, actor)
	if d.Outcome != inventory.Running {
		return inventory.Deployment{}, &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("cancel %s: it has already %s", d.ID, d.Outcome),
		}
	}
	d.Outcome, d.EndedAt = inventory.Cancelled, Epoch.Add(stepTime)
	d.GiveUp(d.EndedAt, "cancelled by "+actor)
	if m, err := f.findLocked("", string(d.Machine)); err == nil {
		m.State = d.From
		if d.Step == inventory.BootAgent && m.BMC.Address != "" {
			m.Interrupted = &inventory.Interruption{Run: d.ID, At: d.EndedAt, On: true}
		}
		if d.Touched() {
			m.State = inventory.Failed
		}
	}
	return *d, nil
}

// shownLocked returns m with the image that its current or last run has put on it.
func (f *Fleet) shownLocked(m inventory.Machine) inventory.Machine {
	if last := f.lastLocked(m); last != nil &&
		(m.State == inventory.Deployed || m.State == inventory.Deploying) {
		m.Image = last.ImageName
	}
	return m
}

// lastLocked returns a machine's current or last run, or nil.
func (f *Fleet) lastLocked(m inventory.Machine) *inventory.Deployment {
	for i := range f.deployments {
		if f.deployments[i].ID == m.Deployment {
			return &f.deployments[i]
		}
	}
	return nil
}

// inspected returns m with an empty report if a machine in its state must have sent one, so that a test need
// not give one.
func inspected(m inventory.Machine) inventory.Machine {
	if m.Report == nil && m.State != inventory.Discovered && m.State != inventory.Enrolled {
		m.Report = &inventory.Report{}
	}
	return m
}

// Progress is half of write-image, of a machine in that step.
func (f *Fleet) Progress(id inventory.MachineID) (inventory.Progress, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.deployments {
		if d.Machine == id && d.Outcome == inventory.Running && d.Step == inventory.WriteImage {
			return inventory.Progress{
				Phase: "write", Done: ImageBytes / 2, Total: ImageBytes,
				Sent: ImageBytes / 4,
			}, true
		}
	}
	return inventory.Progress{}, false
}

func erasure(m inventory.Machine, d inventory.Deployment, at time.Time) inventory.Erasure {
	r := inventory.Erasure{
		At: at, Machine: m.ID, MachineName: m.Name, Run: d.ID, Actor: d.Actor, Model: "PM9A3",
		Disk: inventory.DiskIdentity{Name: "nvme0n1", Serial: "D1", Bytes: 960197124096},
		Erased: inventory.Erased{
			Method:  "NVMe sanitize",
			Proof:   "read back 1024 places: 1024 read zeros, none of the 300 that held data reads as before",
			Checked: 1024,
			Bytes:   960197124096,
			TookMS:  9000,
		},
	}
	if d.Erase.Quick {
		r.Erased = inventory.Erased{
			Method: inventory.MethodMetadata,
			Proof:  "no signature of a system is left; the data was not erased",
			Bytes:  960197124096,
			TookMS: 300,
		}
	}
	return r
}
