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
	"sync"
	"time"

	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/timeline"
)

// Policy says how machines that nobody announced are treated.
type Policy string

// The policies for machines that nobody announced.
const (
	PolicyApprove Policy = "approve" // they register and wait for an operator
	PolicyAuto    Policy = "auto"    // they are approved at once
	PolicyDeny    Policy = "deny"    // they are left alone
)

// Deadlines bound the waiting steps, each counted from the moment the step began.
type Deadlines struct {
	// BootAgent is from power-on to the agent's call, for each of MaxBoots boots. Big servers need 15 minutes
	// of POST.
	BootAgent  time.Duration
	WriteImage time.Duration
	VerifyOS   time.Duration // power-on to the phone-home
	// Command is how long a BMC has to carry out a command; 0 means commandTime.
	Command time.Duration
}

// An Image is what the engine needs to know of an image in the catalogue.
type Image struct {
	ID         string
	Name       string
	RawSize    uint64
	Smallest   uint64 // bytes that a disk must have, with room for the seed; 0 when not known
	Fault      string // why it cannot be deployed; "" when it can
	SectorSize int    // bytes, of its partition table; 0 when it has none
	Stored     uint64 // bytes, compressed, as it is sent
}

// Config configures an Engine. Everything is required but Now, Elapsed, Interfaces and Deadlines.Command.
type Config struct {
	Store   *boltdb.Store
	Key     nonce.Key
	Seal    func(plain []byte) (inventory.Sealed, error)
	Unseal  func(inventory.Sealed) ([]byte, error)
	OpenBMC power.Opener
	BMC     power.Target // user and password for machines that have none of their own
	Pace    power.Pace
	Image   func(ref string) (Image, error)
	Server  func(machine netip.Addr) netip.AddrPort // where a machine at that address reaches the boot plane
	Policy  Policy
	// TrustReportedBMC accepts the BMC addresses that agents of approved machines report, without an
	// operator.
	TrustReportedBMC bool
	Interfaces       func() []netip.Prefix // our own addresses and networks, where no BMC is; nil: none
	Deadlines        Deadlines
	Now              func() time.Time     // the time of day, which may be set; see clock.go
	Elapsed          func() time.Duration // since some moment before New; nobody sets it
	Log              *slog.Logger
}

// A store is the part of Config.Store that the engine uses; tests wrap it.
type store interface {
	View(f func(*boltdb.Tx) error) error
	Update(f func(*boltdb.Tx) error) error
	Batch(f func(*boltdb.Tx) error) error
}

// An Engine runs the lives of all machines.
type Engine struct {
	cfg      Config
	store    store
	timeline *timeline.Timeline
	nonces   *nonce.Issuer

	admitting sync.Mutex // guards the next two; before mu
	arriving  map[inventory.MAC]*arrival
	going     map[inventory.MachineID]bool // being deleted to make room

	adding  sync.Mutex // held while a machine is added
	mu      sync.RWMutex
	ctx     context.Context // of Run; nil before
	wg      sync.WaitGroup
	workers map[inventory.MachineID]*worker
	byMAC   map[inventory.MAC]*worker

	results   intake
	registers intake

	grace   time.Duration // workersGrace, but for tests
	written chan struct{} // closed when the timeline's loop has ended; Drain writes later events
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
	cfg.Deadlines.Command = cmp.Or(cfg.Deadlines.Command, commandTime)
	e := &Engine{
		cfg:     cfg,
		store:   cfg.Store,
		grace:   workersGrace,
		written: make(chan struct{}),
		workers: map[inventory.MachineID]*worker{},
		byMAC:   map[inventory.MAC]*worker{},

		arriving:  map[inventory.MAC]*arrival{},
		going:     map[inventory.MachineID]bool{},
		results:   newIntake(resultsOfStrangers, resultsOfKnown),
		registers: newIntake(registrations, registrations),
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

// workersGrace is how long workers may take to stop. What happens to them meanwhile is still noted.
const workersGrace = time.Second

// Run runs the workers until ctx ends. When it returns, the events that were noted until then are on disk.
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
	close(e.written)
	stopped := make(chan struct{})
	go func() {
		defer bug.Recover(e.cfg.Log, "stop")
		defer close(stopped)
		e.wg.Wait()
	}()
	select {
	case <-stopped:
	case <-time.After(e.grace):
		e.cfg.Log.Warn("stop: a worker is still busy; what it meets from now on is not on the timeline",
			"waited", e.grace)
	}
	return e.Drain()
}

// Drain writes the events that were noted since Run returned. The servers of machines stop after Run, and
// note until then.
func (e *Engine) Drain() error { return e.timeline.Drain() }

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
