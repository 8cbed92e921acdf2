package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

func newID(prefix string) string {
	var b [4]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// add stores a new machine, says so in log, and starts its worker. Without a name it gets one from its MAC.
func (e *Engine) add(m inventory.Machine, log *slog.Logger, ev inventory.Event) (*worker, error) {
	// One at a time, and not under e.mu: a request for a boot script never waits for the disk.
	e.adding.Lock()
	defer e.adding.Unlock()
	m.ID, m.Name = e.assignName(m)
	return e.insert(e.store.Update, m, log, ev)
}

// insert stores a machine that has an id and a name, with its events, and starts its worker.
func (e *Engine) insert(
	update func(func(*boltdb.Tx) error) error, m inventory.Machine, log *slog.Logger,
	events ...inventory.Event,
) (*worker, error) {
	m.CreatedAt, m.ChangedAt = e.cfg.Now().UTC(), e.cfg.Now().UTC()
	var last uint64
	err := update(func(tx *boltdb.Tx) error {
		if err := tx.PutMachine(m); err != nil {
			return err
		}
		for i := range events {
			events[i].Machine, events[i].At = m.ID, m.CreatedAt
			if err := tx.AppendEvent(&events[i]); err != nil {
				return err
			}
			last = events[i].Seq
		}
		return nil
	})
	if err != nil {
		return nil, taken(m.Name, err)
	}
	e.timeline.Wrote(last)
	for _, ev := range events {
		log := log
		if ev.Actor != "" {
			log = log.With("actor", ev.Actor)
		}
		log.Info(ev.Text, "machine", m.Name, "id", m.ID, "macs", m.MACs, "kind", ev.Kind)
	}
	w := newWorker(e, m, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.index(w)
	if e.ctx != nil {
		e.startLocked(w)
	}
	return w, nil
}

// longName makes a name from the whole MAC, which no other machine is given.
func longName(mac inventory.MAC) string { return "m" + strings.ReplaceAll(string(mac), ":", "") }

// assignName returns an id for a new machine and, unless it has one, a name: from the last six digits of its
// MAC, which is on its sticker.
func (e *Engine) assignName(m inventory.Machine) (inventory.MachineID, string) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	id := inventory.MachineID(newID("m-"))
	for e.workers[id] != nil {
		id = inventory.MachineID(newID("m-"))
	}
	if m.Name != "" {
		return id, m.Name
	}
	if len(m.MACs) == 0 {
		return id, string(id)
	}
	digits := strings.ReplaceAll(string(m.MACs[0]), ":", "")
	for _, w := range e.workers {
		if w.snap.Load().m.Name == "m"+digits[6:] {
			return id, longName(m.MACs[0])
		}
	}
	return id, "m" + digits[6:]
}

// taken turns the store's error about a name, MAC or BMC that is taken into a Problem.
func taken(name string, err error) error {
	if t, ok := errors.AsType[*boltdb.Taken](err); ok {
		said := fmt.Sprintf("machine %s: %v", name, t)
		if t.What == fmt.Sprintf("name %q", t.By) {
			said = "there is a machine called " + t.By + " already"
		}
		return &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: said,
			Hint:   "`pxectl machine show " + t.By + "` shows that machine",
			Err:    err,
		}
	}
	return err
}

// AddMachine records a machine before it ever booted. It is enrolled, since the operator vouches for it.
func (e *Engine) AddMachine(_ context.Context, actor string, n NewMachine) (inventory.Machine, error) {
	m, err := n.Machine(e.cfg.Seal)
	if err != nil {
		return m, err
	}
	if err := reachable(m.BMC.Address, e.interfaces()); err != nil {
		return m, err
	}
	w, err := e.add(m, e.cfg.Log, inventory.Event{
		Kind: inventory.KindState, Actor: actor, Text: "added: enrolled",
	})
	if err != nil {
		return m, err
	}
	return w.snap.Load().shown(), nil
}

// EditMachine changes what the operator decides of a machine.
func (e *Engine) EditMachine(ctx context.Context, actor, ref string, edit Edit) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return call(ctx, w, func() (inventory.Machine, error) {
		s := w.snap.Load()
		next := s.m
		if edit.AcceptBMC != nil {
			if err := w.acceptable(next, *edit.AcceptBMC); err != nil {
				return next, err
			}
		}
		if err := edit.Apply(&next, actor, w.now(), e.cfg.Seal); err != nil {
			return next, err
		}
		if edit.BMC.Address != nil {
			if err := reachable(next.BMC.Address, e.interfaces()); err != nil {
				return next, err
			}
		}
		err := w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			*m = next
			if r := s.record(); r != nil && r.Step == inventory.BootAgent && s.m.BMC.Address == "" &&
				next.BMC.Address != "" {
				d.History[len(d.History)-1].ActedAt = time.Time{} // nobody has to reboot it by hand any more
			}
			return []inventory.Event{
				{Kind: inventory.KindEdit, Actor: actor, Text: "edited: " + edit.touches()},
			}
		})
		if err == nil && reached(next.BMC) != reached(s.m.BMC) {
			w.stopWork() // what is in flight uses the old BMC; it is done again
		}
		return w.snap.Load().shown(), taken(w.snap.Load().m.Name, err)
	})
}

// DeleteMachine deletes a machine in any state, even when its BMC does not answer.
func (e *Engine) DeleteMachine(ctx context.Context, actor, ref string) error {
	w, err := e.find(ref)
	if err != nil {
		return err
	}
	_, err = call(ctx, w, func() (struct{}, error) {
		return struct{}{}, w.remove(actor, e.store.Update, "deleted")
	})
	return err
}

// Approve approves a discovered machine, and accepts the reported BMC that the approval names.
func (e *Engine) Approve(ctx context.Context, actor, ref string, a Approval) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return call(ctx, w, func() (inventory.Machine, error) {
		m := w.snap.Load().m
		bmc, err := a.Accepts(m)
		switch {
		case err != nil:
			return m, err
		case m.State != inventory.Discovered:
			return w.snap.Load().shown(), nil // approved already, which is no error
		case bmc != "":
			if err := w.acceptable(m, bmc); err != nil {
				return m, err
			}
		}
		err = w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.State = inventory.Enrolled
			text := "approved"
			if bmc != "" && m.BMC.Proposed != nil {
				acceptBMC(&m.BMC, bmc)
				text += ", with its BMC at " + bmc
			}
			return []inventory.Event{{Kind: inventory.KindApprove, Actor: actor, Text: text}}
		})
		return w.snap.Load().shown(), taken(m.Name, err)
	})
}

// secret holds what only the deployed machine may see.
type secret struct {
	UserData []byte   `json:"user_data,omitempty"`
	SSHKeys  []string `json:"ssh_keys,omitempty"`
	Network  string   `json:"network,omitempty"`
}

// Deploy starts a deployment and returns at once.
func (e *Engine) Deploy(
	ctx context.Context, actor, ref string, r inventory.DeployRequest,
) (inventory.Deployment, error) {
	var none inventory.Deployment
	w, err := e.find(ref)
	if err != nil {
		return none, err
	}
	img, err := e.cfg.Image(r.Image)
	if err != nil {
		return none, err
	}
	if err := checkRequest(r); err != nil {
		return none, err
	}
	plain, err := json.Marshal(secret{r.UserData, r.SSHKeys, r.Network})
	if err != nil {
		return none, err
	}
	sealed, err := e.cfg.Seal(plain)
	if err != nil {
		return none, fmt.Errorf("seal the user-data: %w", err)
	}
	return whenIdle(ctx, w, func() (inventory.Deployment, error) {
		s := w.snap.Load()
		if err := (Wish{Deploy: &r}).refused(s); err != nil {
			return none, err
		}
		if _, err := writable(s.m, r.Disk, r.Overwrite, img); err != nil {
			return none, err
		}
		d := inventory.Deployment{
			ID: inventory.DeploymentID(newID("d-")), Actor: actor, ImageID: img.ID, ImageName: img.Name,
			Hostname: cmp.Or(r.Hostname, s.m.Name),
			Secret:   sealed, DiskHint: r.Disk, Overwrite: r.Overwrite, Mode: r.Mode, Verify: r.Verify,
		}
		return w.launch(d, fmt.Sprintf("deployment %s of image %s as %s", d.ID, img.Name, d.Hostname))
	})
}
