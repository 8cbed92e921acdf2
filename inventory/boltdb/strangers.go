package boltdb

import (
	"bytes"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"

	"github.com/pxectl/pxectl/inventory"
)

// Anybody can invent machines that wait for approval, and events of each. So each of them keeps fewer events
// than other machines, and all together have a bound. Beyond it, the one with the most events loses its
// oldest, those from the wire first.
const (
	// PerStranger is how many events from the wire are kept of one of them, and how many of workers and
	// operators.
	PerStranger = 200
	// OfStrangers is how many events are kept of all together: about 30 MB.
	OfStrangers = 20_000
)

// countStrangers builds the counts in a file of an older release, which had none.
func countStrangers(tx *bolt.Tx) error {
	if _, err := tx.CreateBucket(bucketStrangers); err != nil {
		return err
	}
	t := &Tx{tx: tx}
	machines, err := t.Machines()
	if err != nil {
		return err
	}
	for _, m := range machines {
		if err := t.putStranger(m); err != nil {
			return err
		}
	}
	return nil
}

// putStranger notes whether a machine waits for approval.
func (tx *Tx) putStranger(m inventory.Machine) error {
	id, strangers := string(m.ID), tx.tx.Bucket(bucketStrangers)
	switch known := !tx.isStranger(id); {
	case m.State != inventory.Discovered && !known:
		return strangers.Delete([]byte(id))
	case m.State == inventory.Discovered && known:
		return tx.putStrangerCount(id)
	}
	return nil
}

// putStrangerCount notes how many events a stranger has.
func (tx *Tx) putStrangerCount(id string) error {
	n := tx.count(share{id, true}) + tx.count(share{id, false})
	return tx.tx.Bucket(bucketStrangers).Put([]byte(id), seqKey(n))
}

func (tx *Tx) isStranger(owner string) bool {
	return owner != "" && tx.tx.Bucket(bucketStrangers).Get([]byte(owner)) != nil
}

// settleStrangers updates the counts of the strangers whose events the transaction wrote, and drops events
// beyond OfStrangers.
func (tx *Tx) settleStrangers() error {
	strangers, wrote := tx.tx.Bucket(bucketStrangers), false
	for of := range tx.counts {
		if !tx.isStranger(of.owner) {
			continue
		}
		wrote = true
		if err := tx.putStrangerCount(of.owner); err != nil {
			return err
		}
	}
	for wrote {
		all, most, owner := uint64(0), uint64(0), ""
		c := strangers.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			n := binary.BigEndian.Uint64(v)
			if all += n; n > most {
				most, owner = n, string(bytes.Clone(k))
			}
		}
		if all <= OfStrangers {
			break
		}
		of := share{owner, true}
		if tx.count(of) == 0 {
			of.wire = false
		}
		n := tx.count(of)
		if err := tx.trim(of, n-min(all-OfStrangers, (n+1)/2)); err != nil {
			return err
		}
		if err := tx.putCount(of); err != nil {
			return err
		}
		if err := tx.putStrangerCount(owner); err != nil {
			return err
		}
	}
	return nil
}
