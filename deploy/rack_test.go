package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

const (
	testMAC = inventory.MAC("52:54:00:00:00:01")
	testBMC = "192.0.2.51"
)

// A rack is an engine with one machine. The test plays its firmware, agent and system, with the calls that
// the real ones make.
type rack struct {
	t       *testing.T
	path    string
	policy  Policy
	bmc     *powertest.BMC
	line    *powertest.Line // its BMC's console; nil when it has none
	disks   []inventory.Disk
	pci     []inventory.PCIDevice
	noBMC   bool
	at      string                                 // where the agent reports its BMC
	trust   bool                                   // bmc.trust_reported
	own     []netip.Prefix                         // the appliance's addresses
	open    power.Opener                           // instead of bmc
	mute    atomic.Bool                            // the agent boots and never calls
	hangs   atomic.Bool                            // the agent says that it reboots, and hangs
	noHome  atomic.Bool                            // the system runs and never phones home
	answer  func(inventory.Order) inventory.Result // instead of the agent's good answer
	onOrder func(inventory.Order)                  // before the agent answers
	dead    Deadlines
	tune    func(*Engine) // before it runs
	ahead   atomic.Int64  // nanoseconds that the test has let pass
	set     atomic.Int64  // nanoseconds by which the time of day was set

	mu     sync.Mutex
	engine *Engine
	stop   func()             // ends the engine, as a crash does
	end    context.CancelFunc // tells it to end
	ended  chan struct{}      // closed when it has
	cancel context.CancelFunc // ends what the machine runs
	gone   chan struct{}      // closed when it has ended
	boots  int
	wg     sync.WaitGroup
	closed bool
}

func newRack(t *testing.T) *rack {
	r := &rack{
		t: t, at: testBMC, path: filepath.Join(t.TempDir(), "db"), policy: PolicyApprove,
		disks: []inventory.Disk{
			{Name: "vda", Serial: "D1", Transport: "virtio", Bytes: 4 << 30, LogicalSector: 512},
		},
		dead: Deadlines{BootAgent: time.Minute, WriteImage: time.Minute, VerifyOS: time.Minute},
	}
	r.bmc = &powertest.BMC{}
	r.bmc.Booted = func(b power.Boot) { r.powerOn(b) }
	r.bmc.Stopped = func() { r.powerOff() }
	t.Cleanup(func() {
		r.powerOff()
		r.mu.Lock()
		r.closed = true
		stop := r.stop
		r.mu.Unlock()
		if stop != nil {
			stop()
		}
		r.wg.Wait()
	})
	return r
}

var testKey = nonce.Key("0123456789abcdef0123456789abcdef")

// start opens the store and runs an engine on it. The returned engine is the one that the machine talks to
// from now on.
func (r *rack) start() *Engine {
	r.t.Helper()
	store, err := boltdb.Open(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	seal := func(b []byte) (inventory.Sealed, error) { return append([]byte("sealed:"), b...), nil }
	unseal := func(s inventory.Sealed) ([]byte, error) {
		plain, ok := strings.CutPrefix(string(s), "sealed:")
		if !ok {
			return nil, errors.New("not sealed")
		}
		return []byte(plain), nil
	}
	began := time.Now()
	e, err := New(Config{
		Store: store, Key: testKey, Seal: seal, Unseal: unseal,
		OpenBMC: func(t power.Target) (power.BMC, error) {
			if r.open != nil {
				return r.open(t)
			}
			if r.line != nil {
				return powertest.WithConsole{BMC: r.bmc, Line: r.line}, nil
			}
			return r.bmc, nil
		},
		BMC: power.Target{User: "admin", Password: "secret"}, Pace: powertest.Fast,
		Image: func(ref string) (Image, error) {
			if ref != "debian-12" && ref != "img1" {
				return Image{}, &inventory.Problem{
					Code: inventory.CodeNotFound, Detail: fmt.Sprintf("no image %q", ref),
				}
			}
			return Image{
				ID: "img1", Name: "debian-12", RawSize: 1 << 30, SectorSize: 512,
				Stored: 1 << 28,
			}, nil
		},
		Server:    func(netip.Addr) netip.AddrPort { return netip.MustParseAddrPort("192.0.2.1:8080") },
		Policy:    r.policy,
		Now:       func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load() + r.set.Load())) },
		Elapsed:   func() time.Duration { return time.Since(began) + time.Duration(r.ahead.Load()) },
		Deadlines: r.dead,

		TrustReportedBMC: r.trust,
		Interfaces:       func() []netip.Prefix { return r.own },
		Log:              slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.tune != nil {
		r.tune(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	for { // until the workers take mail
		e.mu.RLock()
		up := e.ctx != nil
		e.mu.RUnlock()
		if up {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.mu.Lock()
	r.engine = e
	r.end, r.ended = cancel, done
	r.stop = sync.OnceFunc(func() { cancel(); <-done; store.Close() })
	r.mu.Unlock()
	return e
}

// crash ends the engine and starts another one on what it left in the store.
func (r *rack) crash() *Engine {
	r.mu.Lock()
	stop := r.stop
	r.mu.Unlock()
	stop()
	return r.start()
}

func (r *rack) now() *Engine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engine
}

// powerOn plays the firmware: it asks for the boot script unless it was told to boot the disk.
func (r *rack) powerOn(b power.Boot) {
	r.powerOff()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	r.cancel, r.gone = cancel, gone
	r.boots++
	bootID := fmt.Sprintf("boot-%d", r.boots)
	r.wg.Go(func() {
		defer close(gone)
		if b.Device == power.DeviceDisk {
			r.system(ctx)
			return
		}
		answer := r.now().IssueBoot(testMAC)
		switch {
		case answer.Local:
			r.system(ctx)
		case answer.Agent && !r.mute.Load():
			r.agent(ctx, answer.Nonce, bootID)
		}
	})
}

func (r *rack) powerOff() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
}

// unplug powers off, and returns when no call of the machine's is under way any more.
func (r *rack) unplug() {
	r.powerOff()
	r.mu.Lock()
	gone := r.gone
	r.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// agentless ends the agent without the BMC, so that the next deployment has to boot it, which is in vain.
func (r *rack) agentless() {
	r.t.Helper()
	r.mute.Store(true)
	r.unplug()
	w, err := r.now().find("m1")
	if err == nil {
		err = w.killNonces(r.t.Context())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a state, and shows the timeline when it does not come.
func (r *rack) until(want inventory.State) inventory.Machine {
	r.t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		m, err := r.now().Machine(string(testMAC))
		if err == nil && m.State == want {
			return m
		}
		if time.Now().After(end) {
			events, _ := r.now().Events(0, "", 1000)
			var lines strings.Builder
			for _, ev := range events {
				fmt.Fprintf(&lines, "%s %s\n", ev.Kind, ev.Text)
			}
			r.t.Fatalf("machine is %s (%v), want %s; BMC calls: %v\n%s", m.State, err, want, r.bmc.Calls(),
				lines.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// available brings the machine in: powered on by hand, registered, approved, inspected.
func (r *rack) available() {
	r.t.Helper()
	r.start()
	r.bmc.Set(true)
	r.powerOn(power.Boot{Device: power.DevicePXE})
	r.until(inventory.Discovered)
	r.reported()
	var seen Approval
	if p := r.machine().BMC.Proposed; p != nil {
		seen.BMC = &p.Address
	}
	if _, err := r.now().Approve(context.Background(), "test", string(testMAC), seen); err != nil {
		r.t.Fatal(err)
	}
	name := "m1"
	if _, err := r.now().EditMachine(context.Background(), "test", string(testMAC),
		Edit{Name: &name}); err != nil {
		r.t.Fatal(err)
	}
	r.until(inventory.Available)
}

func (r *rack) reported() {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if m, err := r.now().Machine(string(testMAC)); err == nil && m.Report != nil {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("the agent's report never arrived")
		}
	}
}

func (r *rack) deploy(req inventory.DeployRequest) inventory.Deployment {
	r.t.Helper()
	if req.Image == "" {
		req.Image = "debian-12"
	}
	d, err := r.now().Deploy(context.Background(), "test", "m1", req)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// texts are those of all events in the store.
func texts(t *testing.T, store *boltdb.Store) string {
	t.Helper()
	var all []string
	err := store.View(func(tx *boltdb.Tx) error {
		events, err := tx.Events(0, 1<<20)
		for _, e := range events {
			all = append(all, e.Text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "; ")
}
