package deploy

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

func TestOlderRecordsOfBMCs(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	all := []inventory.Machine{
		{
			ID:        "m-1",
			State:     inventory.Available,
			BMC:       inventory.BMC{Address: "::ffff:192.0.2.51", Discovered: true},
			CreatedAt: at,
		},
		{ID: "m-2", State: inventory.Deployed, BMC: inventory.BMC{Address: "192.0.2.52:623"}, CreatedAt: at},
		{
			ID:         "m-3",
			State:      inventory.Discovered,
			BMC:        inventory.BMC{Address: "192.0.2.53", Discovered: true},
			ReportedAt: at,
		},
		{
			ID:         "m-4",
			State:      inventory.Available,
			BMC:        inventory.BMC{Address: "192.0.2.52", Discovered: true},
			CreatedAt:  at.Add(-time.Hour),
			ReportedAt: at,
		},
		{ID: "m-5", State: inventory.Available, BMC: inventory.BMC{Address: "bmc.example"}},
		{ID: "m-6", State: inventory.Available, BMC: inventory.BMC{Address: "192.0.2.56:6230"}},
		{ID: "m-7", State: inventory.Available},
	}
	var changed []inventory.MachineID
	for _, m := range tidyBMCs(all) {
		changed = append(changed, m.ID)
	}
	if diff := cmp.Diff([]inventory.MachineID{"m-2", "m-4", "m-3", "m-1"}, changed,
		cmp.Transformer("set", func(ids []inventory.MachineID) map[inventory.MachineID]bool {
			set := map[inventory.MachineID]bool{}
			for _, id := range ids {
				set[id] = true
			}
			return set
		})); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	var got []inventory.BMC
	for _, m := range all {
		got = append(got, m.BMC)
	}
	want := []inventory.BMC{
		{Address: "192.0.2.51", Discovered: true},
		{Address: "192.0.2.52"},
		{Proposed: &inventory.BMCProposal{Address: "192.0.2.53", At: at}},
		// An address that an operator has set is kept before a reported one.
		{Proposed: &inventory.BMCProposal{Address: "192.0.2.52", At: at}},
		{Address: "bmc.example"},
		{Address: "192.0.2.56:6230"},
		{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("BMCs (-want +got):\n%s", diff)
	}
	if again := tidyBMCs(all); len(again) != 0 {
		t.Errorf("a second time changes %v", again)
	}
}

func (r *rack) machine() inventory.Machine {
	r.t.Helper()
	m, err := r.now().Machine(string(testMAC))
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// The store of an older release is opened: what it holds of BMCs is brought to today's form.
func TestAnOlderStoreIsTidied(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	store, err := boltdb.Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	err = store.Update(func(tx *boltdb.Tx) error {
		for _, m := range []inventory.Machine{
			{
				ID:    "m-00000001",
				Name:  "a",
				State: inventory.Available,
				BMC:   inventory.BMC{Address: "192.0.2.7:623"},
			},
			{
				ID:    "m-00000002",
				Name:  "b",
				State: inventory.Available,
				BMC:   inventory.BMC{Address: "192.0.2.7", Discovered: true},
			},
			{
				ID:    "m-00000003",
				Name:  "c",
				State: inventory.Discovered,
				BMC:   inventory.BMC{Address: "192.0.2.9", Discovered: true},
			},
		} {
			if err := tx.PutMachine(m); err != nil {
				return err
			}
		}
		return nil
	})
	store.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	for range 2 {
		for name, want := range map[string]string{
			"a": "192.0.2.7 false ",
			"b": " false 192.0.2.7",
			"c": " false 192.0.2.9",
		} {
			m, err := r.now().Machine(name)
			proposed := ""
			if m.BMC.Proposed != nil {
				proposed = m.BMC.Proposed.Address
			}
			if got := fmt.Sprintf("%s %v %s", m.BMC.Address, m.BMC.Discovered, proposed); err != nil ||
				got != want {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
		address := "192.0.2.7"
		_, err = r.now().EditMachine(t.Context(), "test", "b", Edit{BMC: BMCEdit{Address: &address}})
		asProblem(t, "a BMC that an older store gave to two", err, inventory.CodeConflict,
			"BMC 192.0.2.7 is a's", "")
		r.crash()
	}
}
