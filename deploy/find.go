package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// find resolves an id, a MAC or a name.
func (e *Engine) find(ref string) (*worker, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	w, ok := inventory.Resolve(ref,
		func(id inventory.MachineID) (*worker, bool) { w, ok := e.workers[id]; return w, ok },
		func(mac inventory.MAC) (*worker, bool) { w, ok := e.byMAC[mac]; return w, ok },
		func(name string) (*worker, bool) {
			for _, w := range e.workers {
				if w.snap.Load().m.Name == name {
					return w, true
				}
			}
			return nil, false
		})
	if ok {
		return w, nil
	}
	hint := "`pxectl machine list` shows the machines there are"
	if len(e.workers) == 0 {
		hint = "no machine has registered yet: power one on with network boot first in its boot order"
	}
	return nil, &inventory.Problem{
		Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no machine %q", ref), Hint: hint,
	}
}

// Machines lists all machines, sorted by name.
func (e *Engine) Machines() []inventory.Machine {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := make([]inventory.Machine, 0, len(e.workers))
	for _, w := range e.workers {
		out = append(out, w.snap.Load().shown())
	}
	slices.SortFunc(out, func(a, b inventory.Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Machine finds a machine by name, id or MAC. Without one, the error has CodeNotFound.
func (e *Engine) Machine(ref string) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return w.snap.Load().shown(), nil
}

// MachineAt finds a machine by its MAC. It is fast enough to be called for every packet.
func (e *Engine) MachineAt(mac inventory.MAC) (m inventory.Machine, ok bool) {
	e.mu.RLock()
	w := e.byMAC[mac]
	e.mu.RUnlock()
	if w == nil {
		return inventory.Machine{}, false
	}
	return w.snap.Load().m, true
}

// Deployments lists the deployments and releases that q asks for, newest first. more says that there are
// older ones.
func (e *Engine) Deployments(q DeploymentQuery) (list []inventory.Deployment, more bool, err error) {
	if err := q.Check(); err != nil {
		return nil, false, err
	}
	var of inventory.MachineID
	if q.Machine != "" {
		w, err := e.find(q.Machine)
		if err != nil {
			return nil, false, err
		}
		of = w.id
	}
	if q.Running {
		list = e.running(of)
		if i := slices.IndexFunc(list,
			func(d inventory.Deployment) bool { return d.ID == q.Before }); i >= 0 {
			list = list[i+1:]
		}
	} else {
		err = e.store.View(func(tx *boltdb.Tx) (err error) {
			list, err = tx.Deployments(of, q.Before, q.Limit+1)
			return err
		})
		if errors.Is(err, boltdb.ErrNotFound) {
			return nil, false, &inventory.Problem{
				Code:   inventory.CodeNotFound,
				Detail: fmt.Sprintf("no deployment %q", q.Before),
				Hint:   "list them from the beginning",
				Err:    err,
			}
		}
		if err != nil {
			return nil, false, fmt.Errorf("list deployments: %w", err)
		}
	}
	if len(list) > q.Limit {
		return list[:q.Limit], true, nil
	}
	return list, false, nil
}

// running are the runs that have not ended, newest first: of one machine, or of all when it is "".
func (e *Engine) running(of inventory.MachineID) (list []inventory.Deployment) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for id, w := range e.workers {
		if s := w.snap.Load(); s.running() && (of == "" || of == id) {
			list = append(list, *s.d)
		}
	}
	slices.SortFunc(list, func(a, b inventory.Deployment) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	return list
}

func (e *Engine) stored(id inventory.DeploymentID) (d inventory.Deployment, err error) {
	err = e.store.View(func(tx *boltdb.Tx) error {
		d, err = tx.Deployment(id)
		return err
	})
	return d, err
}

// Deployment finds a deployment by its id, or the current or last one of a machine.
func (e *Engine) Deployment(ref string) (inventory.Deployment, error) {
	d, err := e.stored(inventory.DeploymentID(ref))
	switch {
	case err == nil:
		return d, nil
	case !errors.Is(err, boltdb.ErrNotFound):
		return d, err
	}
	w, err := e.find(ref)
	if err != nil {
		return d, &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no deployment and no machine %q", ref),
			Hint:   "`pxectl deployment list` shows the deployments there are",
		}
	}
	if last := w.snap.Load().d; last != nil {
		return *last, nil
	}
	return d, &inventory.Problem{
		Code:   inventory.CodeNotFound,
		Detail: fmt.Sprintf("%s was never deployed", ref),
		Hint:   "run `pxectl deploy " + ref + " --image NAME`",
	}
}

// ImageInUse names a machine whose running deployment needs the image.
func (e *Engine) ImageInUse(id string) (machine string, ok bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, w := range e.workers {
		if s := w.snap.Load(); s.running() && s.d.ImageID == id {
			return s.m.Name, true
		}
	}
	return "", false
}

// Progress says how far a machine's agent is with its order; false when nothing is known.
func (e *Engine) Progress(id inventory.MachineID) (inventory.Progress, bool) {
	e.mu.RLock()
	w := e.workers[id]
	e.mu.RUnlock()
	if w == nil {
		return inventory.Progress{}, false
	}
	p := w.progress.Load()
	if p == nil {
		return inventory.Progress{}, false
	}
	return *p, true
}
