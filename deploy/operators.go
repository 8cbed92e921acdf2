package deploy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// A machine's name is also its hostname unless told otherwise, so it is a DNS label (RFC 1123 section 2.1).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func checkName(what, name string) error {
	if label.MatchString(name) {
		return nil
	}
	return &inventory.Problem{
		Code: inventory.CodeInvalid, Detail: fmt.Sprintf("%s %q: want a DNS label", what, name),
		Hint: "use lower-case letters, digits and hyphens, 63 at most",
	}
}

func newID(prefix string) string {
	var b [4]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// add stores a new machine and starts its worker. Without a name it is called after its MAC.
func (e *Engine) add(m inventory.Machine, actor string, ev inventory.Event) (*worker, error) {
	// One at a time, and not under e.mu: who asks for a boot script never waits for the disk.
	e.adding.Lock()
	defer e.adding.Unlock()
	m.ID, m.Name = e.christen(m)
	m.CreatedAt, m.ChangedAt = e.cfg.Now().UTC(), e.cfg.Now().UTC()
	ev.Machine, ev.At, ev.Actor = m.ID, m.CreatedAt, actor
	err := e.cfg.Store.Update(func(tx *boltdb.Tx) error {
		if err := tx.PutMachine(m); err != nil {
			return err
		}
		return tx.AppendEvent(&ev)
	})
	if err != nil {
		return nil, taken(m.Name, err)
	}
	e.timeline.grown(ev.Seq)
	e.cfg.Log.Info(ev.Text, "machine", m.Name, "id", m.ID, "macs", m.MACs, "actor", actor)
	w := newWorker(e, m, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.index(w)
	if e.ctx != nil {
		e.startLocked(w)
	}
	return w, nil
}

// christen gives a new machine an id and, unless it has one, a name: after its MAC, which is on its sticker.
func (e *Engine) christen(m inventory.Machine) (inventory.MachineID, string) {
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
			return id, "m" + digits
		}
	}
	return id, "m" + digits[6:]
}

// taken makes the store's refusal a problem for people.
func taken(name string, err error) error {
	if errors.Is(err, boltdb.ErrTaken) {
		return &inventory.Problem{Code: inventory.CodeConflict, Detail: fmt.Sprintf("machine %s: %v", name, err), Hint: "`pxectl machine list` shows which machine has it", Err: err}
	}
	return err
}

// AddMachine records a machine before it ever booted. It is enrolled, since somebody vouches for it.
func (e *Engine) AddMachine(_ context.Context, actor string, n NewMachine) (inventory.Machine, error) {
	m := inventory.Machine{Name: n.Name, State: inventory.Enrolled, UUID: strings.ToLower(n.UUID), Labels: n.Labels, RootDisk: n.RootDisk}
	if n.Name != "" {
		if err := checkName("name", n.Name); err != nil {
			return m, err
		}
	}
	for _, mac := range n.MACs {
		parsed, err := inventory.ParseMAC(string(mac))
		if err != nil {
			return m, &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error()}
		}
		m.MACs = append(m.MACs, parsed)
	}
	if len(m.MACs) == 0 && m.UUID == "" {
		return m, &inventory.Problem{Code: inventory.CodeInvalid, Detail: "a machine needs a MAC or a UUID to be recognized by", Hint: "give --mac or --uuid"}
	}
	if err := checkHint(n.RootDisk); err != nil {
		return m, err
	}
	if err := e.editBMC(&m, n.BMC); err != nil {
		return m, err
	}
	w, err := e.add(m, actor, inventory.Event{Kind: "state", Text: "added: enrolled"})
	if err != nil {
		return m, err
	}
	return w.snap.Load().m, nil
}

func (e *Engine) editBMC(m *inventory.Machine, b BMCEdit) error {
	if b.Address != nil {
		m.BMC.Address, m.BMC.Discovered, m.BMC.Error = *b.Address, false, ""
	}
	if b.User != nil {
		m.BMC.User = *b.User
	}
	if b.Password != nil {
		m.BMC.Password = nil
		if *b.Password != "" {
			sealed, err := e.cfg.Seal([]byte(*b.Password))
			if err != nil {
				return fmt.Errorf("seal the BMC password: %w", err)
			}
			m.BMC.Password = sealed
		}
	}
	return nil
}

// EditMachine changes what the operator decides of a machine.
func (e *Engine) EditMachine(ctx context.Context, actor, ref string, edit Edit) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	if edit.Name != nil {
		if err := checkName("name", *edit.Name); err != nil {
			return inventory.Machine{}, err
		}
	}
	if err := checkHint(edit.RootDisk); err != nil {
		return inventory.Machine{}, err
	}
	return call(ctx, w, func() (inventory.Machine, error) {
		// Sealed before the transaction, since it can fail.
		bmc := w.snap.Load().m
		if err := e.editBMC(&bmc, edit.BMC); err != nil {
			return bmc, err
		}
		err := w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.BMC = bmc.BMC
			if edit.Name != nil {
				m.Name = *edit.Name
			}
			if edit.Labels != nil {
				labels := maps.Clone(m.Labels)
				if labels == nil {
					labels = map[string]string{}
				}
				for k, v := range edit.Labels {
					if v == nil {
						delete(labels, k)
					} else {
						labels[k] = *v
					}
				}
				m.Labels = labels
			}
			if edit.RootDisk != nil {
				m.RootDisk = edit.RootDisk
				if *edit.RootDisk == (inventory.DiskHint{}) {
					m.RootDisk = nil
				}
			}
			if edit.Maintenance != nil {
				m.Maintenance = nil
				if *edit.Maintenance != "" {
					m.Maintenance = &inventory.Maintenance{Reason: *edit.Maintenance, Since: w.now(), Actor: actor}
				}
			}
			return []inventory.Event{{Kind: "edit", Actor: actor, Text: "edited: " + edited(edit)}}
		})
		return w.snap.Load().m, taken(w.snap.Load().m.Name, err)
	})
}

// edited names what an edit touches; never the values, one of which is a password.
func edited(e Edit) string {
	var parts []string
	for what, did := range map[string]bool{
		"name": e.Name != nil, "labels": e.Labels != nil, "root disk": e.RootDisk != nil, "maintenance": e.Maintenance != nil,
		"BMC address": e.BMC.Address != nil, "BMC user": e.BMC.User != nil, "BMC password": e.BMC.Password != nil,
	} {
		if did {
			parts = append(parts, what)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// DeleteMachine forgets a machine, whatever its state and whether its BMC lives or not.
func (e *Engine) DeleteMachine(ctx context.Context, actor, ref string) error {
	w, err := e.find(ref)
	if err != nil {
		return err
	}
	_, err = call(ctx, w, func() (struct{}, error) {
		w.stopWork()
		m := w.snap.Load().m
		ev := inventory.Event{At: w.now(), Kind: "state", Actor: actor, Text: fmt.Sprintf("machine %s (%s) deleted", m.Name, m.ID)}
		err := e.cfg.Store.Update(func(tx *boltdb.Tx) error {
			if err := tx.DeleteMachine(w.id); err != nil {
				return err
			}
			return tx.AppendEvent(&ev)
		})
		if err != nil {
			return struct{}{}, fmt.Errorf("delete %s: %w", m.Name, err)
		}
		e.timeline.grown(ev.Seq)
		w.log().Info(ev.Text, "actor", actor)
		w.orders.set(nil)
		w.deleted = true
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.workers, w.id)
		for mac, other := range e.byMAC {
			if other == w {
				delete(e.byMAC, mac)
			}
		}
		return struct{}{}, nil
	})
	return err
}

// Approve lets a discovered machine in.
func (e *Engine) Approve(ctx context.Context, actor, ref string) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return call(ctx, w, func() (inventory.Machine, error) {
		if m := w.snap.Load().m; m.State != inventory.Discovered {
			return m, nil // approved already: twice is no mistake
		}
		err := w.save(func(m *inventory.Machine, _ *inventory.Deployment) []inventory.Event {
			m.State = inventory.Enrolled
			return []inventory.Event{{Kind: "approve", Actor: actor, Text: "approved"}}
		})
		return w.snap.Load().m, err
	})
}

// secret is what only the deployed machine may see.
type secret struct {
	UserData string   `json:"user_data,omitempty"`
	SSHKeys  []string `json:"ssh_keys,omitempty"`
	Network  string   `json:"network,omitempty"`
}

// Deploy starts a deployment and returns at once.
func (e *Engine) Deploy(ctx context.Context, actor, ref string, r inventory.DeployRequest) (inventory.Deployment, error) {
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
	return call(ctx, w, func() (inventory.Deployment, error) {
		s := w.snap.Load()
		if err := deployable(s, r); err != nil {
			return none, err
		}
		w.orders.set(nil)
		err := w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
			*d = inventory.Deployment{
				ID: inventory.DeploymentID(newID("d-")), Machine: m.ID, Actor: actor, ImageID: img.ID, ImageName: img.Name,
				Hostname: r.Hostname, Secret: sealed, DiskHint: r.Disk, Overwrite: r.Overwrite, Mode: r.Mode, Verify: r.Verify, CreatedAt: w.now(),
				Outcome: inventory.Running, Step: inventory.Validate, From: m.State, Previous: m.Deployment,
			}
			if s.intact() {
				d.From = inventory.Deployed
			}
			if d.Hostname == "" {
				d.Hostname = m.Name
			}
			m.State, m.Deployment, m.Failure, m.Unverified = inventory.Deploying, d.ID, nil, false
			return []inventory.Event{{Kind: "deploy", Actor: actor, Text: fmt.Sprintf("deployment %s of image %s as %s", d.ID, img.Name, d.Hostname)}}
		})
		if err != nil {
			return none, err
		}
		return *w.snap.Load().d, nil
	})
}

// cannot is the error for an operator who wants of a machine what is not possible now.
func (s *snapshot) cannot(why, hint string) error {
	return &inventory.Problem{Code: inventory.CodeConflict, Detail: s.m.Name + " " + why, Hint: hint}
}

// free says why nothing new can begin on a machine, whatever it is.
func (s *snapshot) free() error {
	switch {
	case s.running():
		return s.cannot(fmt.Sprintf("is %s already (%s, at %s)", s.doing(), s.d.ID, s.d.Step), "wait for it, or end it with `pxectl deployment cancel "+string(s.d.ID)+"`")
	case s.m.Maintenance != nil:
		return s.cannot("is in maintenance: "+s.m.Maintenance.Reason, "end it with `pxectl machine edit "+s.m.Name+" --no-maintenance`")
	}
	return nil
}

// deployable says why a machine cannot be deployed now, and what to do about it.
func deployable(s *snapshot, r inventory.DeployRequest) error {
	if err := s.free(); err != nil {
		return err
	}
	switch no := s.cannot; {
	case s.m.State == inventory.Discovered:
		return no("is not approved", "approve it with `pxectl machine approve "+s.m.Name+"`")
	case s.m.Report == nil:
		return no("was never inspected, so its disks are not known", "boot it from the network once; `pxectl machine show "+s.m.Name+"` shows when it has reported")
	case s.intact() && !r.Redeploy:
		return no("has a deployed system; another deployment overwrites its system", "say so with --redeploy")
	case s.m.State != inventory.Available && s.m.State != inventory.Deployed && s.m.State != inventory.Failed:
		return no("is "+string(s.m.State), "wait until it is available")
	}
	return nil
}
