package boltdb

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/pxectl/pxectl/inventory"
)

func deployment(machine inventory.MachineID, n int) inventory.Deployment {
	return inventory.Deployment{
		ID:        inventory.DeploymentID(fmt.Sprintf("d-%s-%d", machine, n)),
		Machine:   machine,
		CreatedAt: time.Unix(1_800_000_000+int64(n), 0).UTC(),
		Outcome:   inventory.Succeeded,
	}
}

func listed(
	t *testing.T, s *Store, machine inventory.MachineID, before inventory.DeploymentID, limit int,
) (ids []inventory.DeploymentID) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		all, err := tx.Deployments(machine, before, limit)
		for _, d := range all {
			ids = append(ids, d.ID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestDeploymentsOfAMachineAreBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	m := machine("m-1", "m1")
	update(t, s, func(tx *Tx) error { return tx.PutMachine(machine("m-2", "m2")) })
	update(t, s, func(tx *Tx) error { return tx.PutDeployment(deployment("m-2", 0)) })
	for n := range 100 {
		d := deployment("m-1", n)
		m.Deployment = d.ID
		if n == 3 {
			m.Holds = d.ID // the system on the disk
		}
		if n > 7 {
			d.Previous = deployment("m-1", 7).ID // where a cancel returns to
		}
		update(t, s, func(tx *Tx) error { return errors.Join(tx.PutMachine(m), tx.PutDeployment(d)) })
		update(t, s, func(tx *Tx) error { // write it again, as every step does
			d.Step = inventory.WriteImage
			return tx.PutDeployment(d)
		})
	}
	got := listed(t, s, "m-1", "", 1000)
	want := []inventory.DeploymentID{}
	for n := 99; n > 99-DeploymentsPerMachine; n-- {
		want = append(want, deployment("m-1", n).ID)
	}
	if want = append(want, deployment("m-1", 7).ID, deployment("m-1", 3).ID); !slices.Equal(got, want) {
		t.Errorf("kept: %v\nwant %v", got, want)
	}
	if got := listed(t, s, "m-2", "", 1000); len(got) != 1 {
		t.Errorf("of another machine %v are kept, want its one", got)
	}
	if err := s.View(func(tx *Tx) error {
		_, err := tx.Deployment(deployment("m-1",
			50).ID)
		return err
	}); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that was dropped: %v, want ErrNotFound", err)
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteMachine("m-1") })
	if got := listed(t, s, "", "", 1000); len(got) != 1 || got[0] != deployment("m-2", 0).ID {
		t.Errorf("after the machine was deleted: %v, want the other machine's alone", got)
	}
}

func TestDeploymentsArePaged(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"))
	for n := range 5 {
		update(t, s, func(tx *Tx) error {
			return tx.PutDeployment(deployment(inventory.MachineID([]string{"a", "b"}[n%2]), n))
		})
	}
	var got []inventory.DeploymentID
	for page := listed(t, s, "", "", 2); len(page) > 0; page = listed(t, s, "", got[len(got)-1], 2) {
		got = append(got, page...)
	}
	if want := []inventory.DeploymentID{"d-a-4", "d-b-3", "d-a-2", "d-b-1", "d-a-0"}; !slices.Equal(got,
		want) {
		t.Errorf("page by page: %v, want %v", got, want)
	}
	if got, want := listed(t, s, "a", "d-a-4",
		9), []inventory.DeploymentID{"d-a-2", "d-a-0"}; !slices.Equal(got, want) {
		t.Errorf("of one machine: %v, want %v", got, want)
	}
}

// A file of an older release gets an order of deployments. The next new deployment drops those beyond the
// limit.
func TestAFileWithoutAnOrderOfDeployments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	err := s.db.Update(func(tx *bolt.Tx) error {
		for n := range 30 {
			if err := put(&Tx{tx: tx}, bucketDeployments, string(deployment("m-1", n).ID),
				deployment("m-1", n)); err != nil {
				return err
			}
		}
		return tx.DeleteBucket(bucketOrder)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, path)
	if got := listed(t, s, "m-1", "", 100); len(got) != 30 || got[0] != deployment("m-1", 29).ID {
		t.Errorf("after opening: %d deployments from %v, want 30, the newest first", len(got), got[:1])
	}
	update(t, s, func(tx *Tx) error { return tx.PutDeployment(deployment("m-1", 30)) })
	if got := listed(t, s, "m-1", "", 100); len(got) != DeploymentsPerMachine ||
		got[0] != deployment("m-1", 30).ID {
		t.Errorf("with another one: %d deployments from %v, want %d", len(got), got[:1],
			DeploymentsPerMachine)
	}
}
