package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// eraseBudget is for all disks of a machine: a large one that can only be overwritten takes a day and more.
const eraseBudget = 7 * 24 * time.Hour

// Release takes a machine's system away: its disks are erased, and then it is available. It returns at once.
func (e *Engine) Release(
	ctx context.Context, actor, ref string, r inventory.EraseRequest,
) (inventory.Deployment, error) {
	return e.erase(ctx, actor, ref, r, "release", Wish{Release: true})
}

// Clean erases the disks of a machine that is available.
func (e *Engine) Clean(
	ctx context.Context, actor, ref string, r inventory.EraseRequest,
) (inventory.Deployment, error) {
	return e.erase(ctx, actor, ref, r, "clean", Wish{Clean: true})
}

func (e *Engine) erase(
	ctx context.Context, actor, ref string, r inventory.EraseRequest, verb string, wish Wish,
) (inventory.Deployment, error) {
	var none inventory.Deployment
	w, err := e.find(ref)
	if err != nil {
		return none, err
	}
	return whenIdle(ctx, w, func() (inventory.Deployment, error) {
		s := w.snap.Load()
		if err := wish.refused(s); err != nil {
			return none, err
		}
		how := ""
		if r.Quick {
			how = ", quick: labels only"
		}
		run := inventory.Deployment{
			ID: inventory.DeploymentID(newID("e-")), Actor: actor, Erase: &r, Hostname: s.m.Name,
		}
		return w.launch(run, fmt.Sprintf("%s %s%s", verb, run.ID, how))
	})
}

// erasable says why a machine cannot be released or cleaned now, and what to do about it.
func erasable(s *snapshot, verb string, from ...inventory.State) error {
	if err := s.free(); err != nil {
		return err
	}
	switch no := s.cannot; {
	case slices.Contains(from, s.m.State) && s.m.Report == nil:
		return no("was never inspected, so its disks are not known", "boot it from the network once")
	case slices.Contains(from, s.m.State):
		return nil
	case s.m.State == inventory.Available:
		return no("is available: there is nothing to release",
			"`pxectl machine clean "+s.m.Name+"` erases its disks")
	case verb == "clean" && s.m.State == inventory.Deployed:
		return no("has a deployed system", "`pxectl release "+s.m.Name+"` takes it away and erases the disks")
	}
	return s.cannot("is "+string(s.m.State), s.towards())
}

// eraseTargets are the disks that are erased. None is an error.
func eraseTargets(m inventory.Machine) ([]inventory.DiskIdentity, error) {
	var targets []inventory.DiskIdentity
	for _, d := range Erases(m) {
		targets = append(targets, d.Identity())
	}
	if len(targets) == 0 {
		return nil, &inventory.Problem{
			Code:   inventory.CodeInvalid,
			Detail: "no disk to erase (have: " + inventory.ListDisks(m.Report.Disks) + ")",
			Hint:   "does the ramdisk have the driver of its disk controller? `pxectl machine show` lists what is not driven",
		}
	}
	return targets, nil
}

// orderErase sets the order to erase the disks that are not erased yet. The targets come from the report that
// the agent has just made.
func (w *worker) orderErase(o *inventory.Order) error {
	s := w.snap.Load()
	if len(s.d.Targets) == 0 {
		targets, err := eraseTargets(s.m)
		if err != nil {
			return w.endStep("", err)
		}
		if err := w.save(func(_ *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			d.Targets = targets
			return nil
		}); err != nil {
			return err
		}
		s = w.snap.Load()
	}
	o.Do, o.Targets, o.Quick = inventory.DoErase, toErase(s.d), s.d.Erase.Quick
	w.orders.set(o)
	return nil
}

// toErase returns the targets of a release that are not recorded as erased yet.
func toErase(d *inventory.Deployment) []inventory.DiskIdentity {
	return slices.DeleteFunc(slices.Clone(d.Targets), func(t inventory.DiskIdentity) bool {
		return slices.ContainsFunc(d.Erased, func(r inventory.Erasure) bool { return r.Disk == t })
	})
}

// erased records that a disk was erased, and ends the step with the last disk. A disk that is recorded
// already is ignored: the agent repeats a result that was not acknowledged.
func (w *worker) erased(disk inventory.DiskIdentity, proof inventory.Erased) error {
	s := w.snap.Load()
	left := toErase(s.d)
	if !slices.Contains(left, disk) {
		w.wireLog().Info("an erase of a disk that is recorded already, or was not ordered", "disk", disk.Name)
		return nil
	}
	w.noteRemoved(proof.Removed)
	rec := inventory.Erasure{
		At: w.now(), Machine: w.id, MachineName: s.m.Name, Run: s.d.ID, Actor: s.d.Actor, Disk: disk,
		Erased: proof,
	}
	for _, d := range s.m.Report.Disks {
		if rec.Disk.Is(d) {
			rec.Model = strings.TrimSpace(d.Vendor + " " + d.Model)
		}
	}
	add := func(m *inventory.Machine, d *inventory.Deployment) {
		d.Erased = append(slices.Clone(d.Erased), rec)
		m.Report = without(*m.Report, rec.Disk)
	}
	if len(left) > 1 {
		return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			add(m, d)
			return []inventory.Event{
				{
					Kind: inventory.KindStep,
					Text: string(inventory.EraseDisks) + ": " + eraseWords(rec),
					Data: map[string]string{inventory.DataStep: string(inventory.EraseDisks)},
				},
			}
		})
	}
	if len(s.d.Targets) == 1 {
		return w.endStep(eraseWords(rec), nil, add)
	}
	said := make([]string, len(s.d.Targets))
	for i, r := range append(slices.Clone(s.d.Erased), rec) {
		said[i] = r.Disk.Name + " by " + r.Method
	}
	verb := "erased and read back"
	if s.d.Erase.Quick {
		verb = "not erased"
	}
	return w.endStep(fmt.Sprintf("%d disks %s: %s", len(said), verb, strings.Join(said, ", ")), nil, add)
}

func eraseWords(r inventory.Erasure) string {
	if r.Method == inventory.MethodMetadata {
		return fmt.Sprintf("disk %s (%s) not erased, labels cleared", r.Disk.Name, r.Disk.Said())
	}
	return fmt.Sprintf("disk %s (%s) erased by %s: %s", r.Disk.Name, r.Disk.Said(), r.Method, r.Proof)
}

// without returns a copy of a report that says that the disk is empty. Reports are shared, so they are never
// written into.
func without(r inventory.Report, id inventory.DiskIdentity) *inventory.Report {
	r.Disks = slices.Clone(r.Disks)
	for i := range r.Disks {
		if id.Is(r.Disks[i]) {
			r.Disks[i].Content = nil
		}
	}
	return &r
}

// finishErase ends a release as succeeded: the machine is available.
func (w *worker) finishErase() error {
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		m.State, m.Failure, m.Holds, m.Interrupted = inventory.Available, nil, "", nil
		d.Outcome, d.EndedAt = inventory.Succeeded, w.now()
		return nil
	})
}

// Erasures lists the records of erased disks that q asks for, newest first. Records of deleted machines are
// found by their id or name. more says that there are older ones.
func (e *Engine) Erasures(q ErasureQuery) (list []inventory.Erasure, more bool, err error) {
	if err := q.Check(); err != nil {
		return nil, false, err
	}
	id := inventory.MachineID(q.Of)
	if q.Of != "" {
		if w, err := e.find(q.Of); err == nil {
			id = w.id
		}
	}
	err = e.store.View(func(tx *boltdb.Tx) (err error) {
		list, err = tx.Erasures(q.Before, q.Limit+1, func(r inventory.Erasure) bool {
			return q.Of == "" || r.Machine == id || r.MachineName == q.Of || r.Disk.Serial == q.Of ||
				r.Disk.WWN == q.Of
		})
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("list erasures: %w", err)
	}
	if len(list) > q.Limit {
		return list[:q.Limit], true, nil
	}
	return list, false, nil
}
