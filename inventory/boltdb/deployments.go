package boltdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/pxectl/pxectl/inventory"
)

// DeploymentsPerMachine is how many deployments and releases of a machine are kept, besides those that it
// still refers to.
const DeploymentsPerMachine = 20

// orderKey sorts deployments by their beginning.
func orderKey(d inventory.Deployment) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(d.CreatedAt.UnixNano())), d.ID...)
}

func idOf(orderKey []byte) string { return string(orderKey[8:]) }

// Deployment finds a deployment by its id.
func (tx *Tx) Deployment(id inventory.DeploymentID) (inventory.Deployment, error) {
	return get[inventory.Deployment](tx, bucketDeployments, string(id))
}

// Deployments lists up to limit deployments, newest first: of one machine, or of all when it is ""; with
// before, those that began earlier than that one. A deleted before is ErrNotFound.
func (tx *Tx) Deployments(
	machine inventory.MachineID, before inventory.DeploymentID, limit int,
) ([]inventory.Deployment, error) {
	c := tx.tx.Bucket(bucketOrder).Cursor()
	k, owner := c.Last()
	if before != "" {
		d, err := tx.Deployment(before)
		if err != nil {
			return nil, err
		}
		c.Seek(orderKey(d))
		k, owner = c.Prev()
	}
	var out []inventory.Deployment
	for ; k != nil && len(out) < limit; k, owner = c.Prev() {
		if machine != "" && string(owner) != string(machine) {
			continue
		}
		d, err := tx.Deployment(inventory.DeploymentID(idOf(k)))
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// PutDeployment writes d. If d is new, it drops the machine's oldest deployments, except those that the
// machine or d refer to.
func (tx *Tx) PutDeployment(d inventory.Deployment) error {
	order, key := tx.tx.Bucket(bucketOrder), orderKey(d)
	isNew := order.Get(key) == nil
	if err := put(tx, bucketDeployments, string(d.ID), d); err != nil {
		return err
	}
	if !isNew {
		return nil
	}
	if err := order.Put(key, []byte(d.Machine)); err != nil {
		return err
	}
	keep := []inventory.DeploymentID{d.ID, d.Previous}
	m, err := tx.Machine(d.Machine)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return tx.dropDeployments(d.Machine, DeploymentsPerMachine, append(keep, m.Deployment, m.Holds))
}

// dropDeployments drops a machine's oldest deployments until the wanted number is left, except those to keep.
func (tx *Tx) dropDeployments(machine inventory.MachineID, want int, keep []inventory.DeploymentID) error {
	order := tx.tx.Bucket(bucketOrder)
	var all [][]byte
	err := order.ForEach(func(k, owner []byte) error {
		if string(owner) == string(machine) {
			all = append(all, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range all[:max(0, len(all)-want)] {
		if slices.Contains(keep, inventory.DeploymentID(idOf(k))) {
			continue
		}
		if err := order.Delete(k); err != nil {
			return err
		}
		if err := tx.tx.Bucket(bucketDeployments).Delete([]byte(idOf(k))); err != nil {
			return err
		}
	}
	return nil
}

// orderDeployments builds the order of the deployments in a file of an older release, which had none.
func orderDeployments(tx *bolt.Tx) error {
	order, err := tx.CreateBucket(bucketOrder)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketDeployments).ForEach(func(k, raw []byte) error {
		var d inventory.Deployment
		if err := decode(k, raw, &d); err != nil {
			return err
		}
		return order.Put(orderKey(d), []byte(d.Machine))
	})
}
