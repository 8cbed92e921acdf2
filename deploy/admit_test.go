package deploy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// stored are the machines in an engine's store.
func stored(t *testing.T, e *Engine) (all []inventory.Machine) {
	t.Helper()
	err := e.cfg.Store.View(func(tx *boltdb.Tx) (err error) {
		all, err = tx.Machines()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// strangers puts machines that wait for approval into the rack's store, from 100 addresses.
func (r *rack) strangers(n int) {
	r.t.Helper()
	store, err := boltdb.Open(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	err = store.Update(func(tx *boltdb.Tx) error {
		for i := range n {
			mac := inventory.MAC(fmt.Sprintf("52:54:70:00:%02x:%02x", i>>8, i&255))
			m := inventory.Machine{
				ID:    inventory.MachineID(fmt.Sprintf("m-%08x", i)),
				Name:  fmt.Sprint("s", i),
				State: inventory.Discovered,
				MACs:  []inventory.MAC{mac},
				Boot:  &inventory.Boot{MAC: mac, IP: fmt.Sprint("192.0.2.", i%100)},
			}
			if err := tx.PutMachine(m); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, store.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// While 1280 registrations from 128 addresses wait, a new machine's waits for one of each address, and a
// known machine's for none. There are never more strangers than may wait for approval.
func TestRegistrationsHaveTheirTurn(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.strangers(MaxStrangers - 10)
	e := r.start()
	const addresses, each, known = 128, 10, inventory.MAC("52:54:00:00:00:0a")
	if _, err := registers(t, e, known, "192.0.2.7"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Approve(t.Context(), "test", string(known), Approval{}); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int64
	some := make(chan struct{})
	var wg sync.WaitGroup
	for i := range addresses * each {
		wg.Go(func() {
			mac := inventory.MAC(fmt.Sprintf("52:54:77:00:%02x:%02x", i>>8, i&255))
			err := registersInTheEnd(t, e, mac, fmt.Sprint("198.51.100.", i%addresses))
			// An address that has the most strangers already gets no more: a conflict.
			if err != nil && inventory.AsProblem(err).Code != inventory.CodeConflict {
				t.Errorf("stranger %d: %v", i, err)
			}
			if done.Add(1) == 100 {
				close(some)
			}
		})
	}
	<-some
	for _, c := range []struct {
		mac  inventory.MAC
		ip   string
		what string
	}{{"52:54:00:00:00:0b", "192.0.2.208", "a new machine"}, {known, "192.0.2.7", "a known machine"}} {
		before := done.Load()
		if err := registersInTheEnd(t, e, c.mac, c.ip); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if n := done.Load() - before; n > addresses*each/2 {
			t.Errorf("%s waited for %d registrations of others", c.what, n)
		}
	}
	wg.Wait()
	waiting := 0
	for _, m := range stored(t, e) {
		if m.State == inventory.Discovered {
			waiting++
		}
	}
	if waiting > MaxStrangers || len(e.arriving)+len(e.going) != 0 {
		t.Errorf("%d strangers are stored, want at most %d; %d arrive and %d go when all is over", waiting,
			MaxStrangers, len(e.arriving), len(e.going))
	}
}

// registersInTheEnd repeats a registration that has waited too long for its turn, as an agent does: on a slow
// disk all calls that wait may run out of time together.
func registersInTheEnd(t *testing.T, e *Engine, mac inventory.MAC, ip string) error {
	for {
		_, err := registers(t, e, mac, ip)
		if err == nil || inventory.AsProblem(err).Code != inventory.CodeTimeout || t.Context().Err() != nil {
			return err
		}
	}
}

// Strangers that hold all their turns keep no known machine waiting.
func TestStrangersTurnsAreTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	e := r.start()
	const known = inventory.MAC("52:54:00:00:00:0a")
	if _, err := registers(t, e, known, "192.0.2.7"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Approve(t.Context(), "test", string(known), Approval{}); err != nil {
		t.Fatal(err)
	}
	for i := range registrations {
		if _, err := e.turn(t.Context(), e.registers, true,
			fmt.Sprint("198.51.100.", i/callsPerIP)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := registers(t, e, known, "192.0.2.7"); err != nil {
		t.Errorf("a known machine beside strangers that have all their turns: %v", err)
	}
}

// A gate holds the transactions that add or delete strangers until it is opened.
type gate struct {
	store
	asked chan struct{}
	open  <-chan struct{}
}

func (g gate) Batch(f func(*boltdb.Tx) error) error {
	g.asked <- struct{}{}
	<-g.open
	return g.store.Batch(f)
}

// Registrations at the same time count before they are stored: two of one MAC make one machine, two MACs that
// would give the same name make two machines, and no address gets more than its share.
func TestArrivalsCount(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	asked, open := make(chan struct{}, 1000), make(chan struct{})
	r.tune = func(e *Engine) { e.store = gate{e.cfg.Store, asked, open} }
	e := r.start()
	var wg sync.WaitGroup
	var refused atomic.Int64
	nonce := e.IssueBoot("52:54:00:00:00:0a").Nonce
	for range 2 {
		wg.Go(func() {
			reg := inventory.Registration{MAC: "52:54:00:00:00:0a", BootID: bootIDOf("52:54:00:00:00:0a")}
			if _, err := e.Register(t.Context(), agentAt(nonce, "192.0.2.7"), reg); err != nil {
				t.Errorf("two registrations of a MAC: %v", err)
			}
		})
	}
	<-asked
	wg.Go(func() {
		if _, err := registers(t, e, "52:55:00:00:00:0a", "192.0.2.8"); err != nil {
			t.Errorf("another MAC with the same end: %v", err)
		}
	})
	<-asked
	for i := range 2 * callsPerIP { // 62 machines of 192.0.2.9 are there, and 8 more register at once
		if i == 0 {
			e.mu.Lock()
			for n := range StrangersPerAddress - 2 {
				m := inventory.Machine{
					ID:    inventory.MachineID(fmt.Sprint("m-fake", n)),
					State: inventory.Discovered,
					Boot:  &inventory.Boot{IP: "192.0.2.9"},
				}
				e.workers[m.ID] = newWorker(e, m, nil)
			}
			e.mu.Unlock()
		}
		wg.Go(func() {
			if _, err := registers(t, e, inventory.MAC(fmt.Sprintf("52:54:77:00:00:%02x", i)),
				"192.0.2.9"); err != nil {
				refused.Add(1)
			}
		})
	}
	for range 2 {
		<-asked
	}
	close(open)
	wg.Wait()
	names := map[string]bool{}
	for _, m := range stored(t, e) {
		names[m.Name] = true
	}
	if len(names) != 4 || !names["m00000a"] || !names["m52550000000a"] || refused.Load() != 2*callsPerIP-2 {
		t.Errorf("machines %v are stored, and %d were refused; want two of the first MACs, two more, and %d",
			names, refused.Load(), 2*callsPerIP-2)
	}
}
