package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/timeline"
)

// Policy says what becomes of machines that nobody announced.
type Policy string

const (
	PolicyApprove Policy = "approve" // they register and wait for an operator
	PolicyAuto    Policy = "auto"    // they are approved at once
	PolicyDeny    Policy = "deny"    // they are left alone
)

// Deadlines bound the waiting steps, each counted from the moment the step began.
type Deadlines struct {
	BootAgent  time.Duration // power-on to the agent's call, each of MaxBoots times; big servers need 15 minutes of POST
	WriteImage time.Duration
	VerifyOS   time.Duration // power-on to the phone-home
}

// An Image is what the engine needs to know of one in the catalogue.
type Image struct {
	ID         string
	Name       string
	RawSize    uint64
	Smallest   uint64 // how many bytes a disk has at least, with room for the seed; 0 when not known
	Fault      string // why nothing can be deployed from it
	SectorSize int    // of its partition table; 0 when it has none
	Stored     uint64 // compressed, as it travels
}

// Config is what the engine is made of. Everything is required but Now, Elapsed and Interfaces.
type Config struct {
	Store   *boltdb.Store
	Key     nonce.Key
	Seal    func(plain []byte) (inventory.Sealed, error)
	Unseal  func(inventory.Sealed) ([]byte, error)
	OpenBMC power.Opener
	BMC     power.Target // user and password for machines that have none of their own
	Pace    power.Pace
	Image   func(ref string) (Image, error)
	Server  func(machine netip.Addr) netip.AddrPort // where a machine with that address reaches the boot plane
	Policy  Policy
	// TrustReportedBMC accepts the BMC addresses that agents of approved machines report, without an operator.
	TrustReportedBMC bool
	Interfaces       func() []netip.Prefix // our own addresses and their networks, where no BMC is; nil: none
	Deadlines        Deadlines
	Now              func() time.Time     // the time of day, which may be set; see clock.go
	Elapsed          func() time.Duration // since some moment before New; nobody sets it
	Log              *slog.Logger
}

// An Engine runs the lives of all machines.
type Engine struct {
	cfg      Config
	timeline *timeline.Timeline
	nonces   *nonce.Issuer

	admitting sync.Mutex // held while a stranger is let in; before adding

	adding  sync.Mutex // held while a machine is added
	mu      sync.RWMutex
	ctx     context.Context // of Run; nil before
	wg      sync.WaitGroup
	workers map[inventory.MachineID]*worker
	byMAC   map[inventory.MAC]*worker
}

// New reads the store. Nothing runs before Run.
func New(cfg Config) (*Engine, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Elapsed == nil {
		began := time.Now()
		cfg.Elapsed = func() time.Duration { return time.Since(began) }
	}
	e := &Engine{
		cfg:     cfg,
		workers: map[inventory.MachineID]*worker{},
		byMAC:   map[inventory.MAC]*worker{},
	}
	var machines []inventory.Machine
	runs := map[inventory.MachineID]*inventory.Deployment{} // the current or last of each
	var last uint64
	err := cfg.Store.View(func(tx *boltdb.Tx) error {
		var err error
		if machines, err = tx.Machines(); err != nil {
			return err
		}
		for _, m := range machines {
			if m.Deployment == "" {
				continue
			}
			d, err := tx.Deployment(m.Deployment)
			if errors.Is(err, boltdb.ErrNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("machine %s: %w", m.Name, err)
			}
			runs[m.ID] = &d
		}
		last = tx.LastSeq()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	changed := tidyBMCs(machines)
	salt := make([]byte, 16)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	var starts []boltdb.Start
	err = cfg.Store.Update(func(tx *boltdb.Tx) error {
		if err := tx.IndexBMCs(machines); err != nil {
			return err
		}
		for _, m := range changed {
			if err := tx.PutMachine(m); err != nil {
				return err
			}
		}
		var err error
		starts, err = tx.NewStart(salt)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("record the start, and index the BMCs: %w", err)
	}
	e.nonces = nonce.NewIssuer(cfg.Key, starts, cfg.Elapsed)
	e.timeline = timeline.New(cfg.Store, cfg.Log, last, e.owner)
	for _, m := range machines {
		e.index(newWorker(e, m, runs[m.ID]))
	}
	return e, nil
}

// workersGrace is how long workers may take to stop: what they meet on the way is still noted.
const workersGrace = time.Second

// Run lets the workers work until ctx ends. What is noted until it returns is on disk then.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.ctx = ctx
	for _, w := range e.workers {
		e.startLocked(w)
	}
	e.mu.Unlock()
	e.wg.Go(func() {
		defer bug.Recover(e.cfg.Log, "let strangers expire")
		e.expireStrangers(ctx)
	})
	e.timeline.Run(ctx)
	stopped := make(chan struct{})
	go func() {
		defer bug.Recover(e.cfg.Log, "stop")
		defer close(stopped)
		e.wg.Wait()
	}()
	select {
	case <-stopped:
	case <-time.After(workersGrace):
		e.cfg.Log.Warn("stop: a worker is still busy; what it meets from now on is not on the timeline", "waited", workersGrace)
	}
	return e.Drain()
}

// Drain writes what was noted since Run returned: by those who serve machines and stop after it.
func (e *Engine) Drain() error { return e.timeline.Drain() }

// Dropped is how many events could not be recorded since the start.
func (e *Engine) Dropped() uint64 { return e.timeline.Dropped() }

func (e *Engine) startLocked(w *worker) {
	ctx, cancel := context.WithCancel(e.ctx)
	w.stop = cancel
	e.wg.Go(func() {
		defer bug.Recover(w.log(), "worker")
		w.run(ctx)
	})
}

// index makes a worker findable by id and MACs.
func (e *Engine) index(w *worker) {
	snap := w.snap.Load()
	e.workers[w.id] = w
	for mac, other := range e.byMAC {
		if other == w && !slices.Contains(snap.m.MACs, mac) {
			delete(e.byMAC, mac)
		}
	}
	for _, mac := range snap.m.MACs {
		e.byMAC[mac] = w
	}
}

// owner finds the machine of a MAC for the timeline.
func (e *Engine) owner(mac inventory.MAC) inventory.MachineID {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if w := e.byMAC[mac]; w != nil {
		return w.id
	}
	return ""
}

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
	return nil, &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no machine %q", ref), Hint: hint}
}

// Machines lists all, by name.
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

// Machine finds one by name, id or MAC.
func (e *Engine) Machine(ref string) (inventory.Machine, error) {
	w, err := e.find(ref)
	if err != nil {
		return inventory.Machine{}, err
	}
	return w.snap.Load().shown(), nil
}

// MachineAt finds one by its MAC, for those who ask about every packet.
func (e *Engine) MachineAt(mac inventory.MAC) (m inventory.Machine, ok bool) {
	e.mu.RLock()
	w := e.byMAC[mac]
	e.mu.RUnlock()
	if w == nil {
		return inventory.Machine{}, false
	}
	return w.snap.Load().m, true
}

// Deployments lists those that are asked for, newest first. more says that there are older ones.
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
		if i := slices.IndexFunc(list, func(d inventory.Deployment) bool { return d.ID == q.Before }); i >= 0 {
			list = list[i+1:]
		}
	} else {
		err = e.cfg.Store.View(func(tx *boltdb.Tx) (err error) {
			list, err = tx.Deployments(of, q.Before, q.Limit+1)
			return err
		})
		if errors.Is(err, boltdb.ErrNotFound) {
			return nil, false, &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no deployment %q", q.Before), Hint: "list them from the beginning", Err: err}
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
	err = e.cfg.Store.View(func(tx *boltdb.Tx) error {
		d, err = tx.Deployment(id)
		return err
	})
	return d, err
}

// Deployment finds one by its id, or the current or last one of a machine.
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
		return d, &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no deployment and no machine %q", ref), Hint: "`pxectl deployment list` shows the deployments there are"}
	}
	if last := w.snap.Load().d; last != nil {
		return *last, nil
	}
	return d, &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("%s was never deployed", ref), Hint: "run `pxectl deploy " + ref + " --image NAME`"}
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

// Note puts on a timeline what somebody on the provisioning network did or said. It never blocks: past a full buffer, events are
// dropped and counted.
func (e *Engine) Note(ev inventory.Event) {
	ev.Wire = true
	e.note(ev)
}

// NoteOwn is Note for what the appliance itself did or found out: nobody on the network can write it as often as they like, so no
// flood pushes it out.
func (e *Engine) NoteOwn(ev inventory.Event) {
	ev.Wire = false
	e.note(ev)
}

func (e *Engine) note(ev inventory.Event) {
	if ev.At.IsZero() {
		ev.At = e.cfg.Now().UTC()
	}
	e.timeline.Note(ev)
}

// Events lists what happened after the event with that number, oldest first; of one machine, or of all when it is "".
func (e *Engine) Events(after uint64, machine inventory.MachineID, limit int) ([]inventory.Event, error) {
	var out []inventory.Event
	err := e.cfg.Store.View(func(tx *boltdb.Tx) (err error) {
		if machine == "" {
			out, err = tx.Events(after, limit)
			return err
		}
		m, err := tx.Machine(machine)
		if err != nil {
			return err
		}
		out, err = tx.Timeline(m, after, limit)
		return err
	})
	if errors.Is(err, boltdb.ErrNotFound) {
		return nil, &inventory.Problem{Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no machine %q", machine)}
	}
	return out, err
}

// Wait returns when there is an event after the one with that number, or with ctx's error.
func (e *Engine) Wait(ctx context.Context, after uint64) error { return e.timeline.Wait(ctx, after) }

// Progress is how far the running order of a machine's agent is.
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
