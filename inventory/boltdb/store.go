package boltdb

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/pxectl/pxectl/inventory"
)

// schema is written into a new file and checked in an old one.
const schema = "1"

var (
	bucketMeta        = []byte("meta")
	bucketMachines    = []byte("machines")          // id → Machine
	bucketMACs        = []byte("macs")              // MAC → id
	bucketNames       = []byte("names")             // name → id
	bucketBMCs        = []byte("bmcs")              // accepted address of a BMC → id; see IndexBMCs
	bucketDeployments = []byte("deployments")       // id → Deployment
	bucketOrder       = []byte("deployments-order") // when it began, id → machine's id
	bucketEvents      = []byte("events")            // seq → Event
	bucketOwned       = []byte("events-owned")      // owner, 0 or 1, seq → nothing: the timeline of a share
	bucketCounts      = []byte("events-count")      // share → how many
	bucketStrangers   = []byte("strangers")         // id of a discovered machine → number of its events
	bucketErasures    = []byte("erasures")          // seq → Erasure; nobody deletes them
	bucketStarts      = []byte("starts")            // number → Start
)

// A Store is an open database file. One process may hold it.
type Store struct{ db *bolt.DB }

// Open opens or creates the file. A damaged file is an error that says so, never a panic.
func Open(path string) (s *Store, err error) {
	// bbolt panics on some truncated files instead of returning ErrInvalid (etcd-io/bbolt#446), and touching
	// a page beyond the end of the file is a memory fault, which Go turns into a panic only on request.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, damaged(path, fmt.Errorf("the file is damaged (%v)", r))
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	_, system := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("open %s: another pxectl holds it", path),
			Err:    err,
			Hint: "`pxectl version` asks the one that runs; stop it first, " +
				"or give this one another data_dir",
		}
	case system:
		return nil, fmt.Errorf("open %s: %w", path, err)
	case err != nil:
		return nil, damaged(path, err)
	}
	db.MaxBatchSize = BatchSize
	if err := checkSize(db); err != nil {
		return nil, errors.Join(damaged(path, err), db.Close())
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{
			bucketMeta, bucketMachines, bucketMACs, bucketNames, bucketBMCs,
			bucketDeployments, bucketEvents, bucketOwned, bucketCounts, bucketErasures, bucketStarts,
		} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if tx.Bucket(bucketOrder) == nil {
			if err := orderDeployments(tx); err != nil {
				return err
			}
		}
		if tx.Bucket(bucketStrangers) == nil {
			if err := countStrangers(tx); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		switch have := string(meta.Get([]byte("schema"))); have {
		case "":
			return meta.Put([]byte("schema"), []byte(schema))
		case schema:
			return nil
		default:
			return fmt.Errorf("schema %q, this pxectl knows %q: use the release that wrote it", have, schema)
		}
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// damaged says what to do with a file that is no database, or not all of one.
func damaged(path string, err error) error {
	return &inventory.Problem{
		Code: inventory.CodeInternal, Detail: fmt.Sprintf("open %s: %v", path, err), Err: err,
		Hint: "put a copy of data_dir's pxectl.db back in its place; if there is none, move " + path +
			" away and begin anew with `pxectl serve --new-database`",
	}
}

// Owner returns the keys that the database belongs to, "" for none. used says whether anything has been
// written to it.
func (s *Store) Owner() (owner string, used bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		owner = string(tx.Bucket(bucketMeta).Get([]byte("owner")))
		key, _ := tx.Bucket(bucketMachines).Cursor().First()
		used = key != nil || tx.Bucket(bucketEvents).Sequence() > 0
		return nil
	})
	return owner, used, err
}

// SetOwner binds the database to keys.
func (s *Store) SetOwner(owner string) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte("owner"), []byte(owner))
	})
}

// checkSize compares the number of pages in the header with the file's.
func checkSize(db *bolt.DB) error {
	st, err := os.Stat(db.Path())
	if err != nil {
		return err
	}
	return db.View(func(tx *bolt.Tx) error {
		if tx.Size() > st.Size() {
			return fmt.Errorf("the file is cut off: %d bytes, want %d", st.Size(), tx.Size())
		}
		return nil
	})
}

// Close waits for running transactions and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// BatchSize is the largest number of Batch calls in one transaction.
const BatchSize = 50

// Batch is Update for many goroutines with small changes: calls at the same time share a transaction. fn may
// run more than once.
func (s *Store) Batch(fn func(*Tx) error) error { return s.db.Batch(within(fn)) }

// Update runs fn in a transaction that is on disk when Update returns nil.
func (s *Store) Update(fn func(*Tx) error) error {
	return s.db.Update(within(fn))
}

func within(fn func(*Tx) error) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		t := &Tx{tx: tx}
		if err := fn(t); err != nil {
			return err
		}
		return t.settle()
	}
}

// View runs fn on a snapshot of the store.
func (s *Store) View(fn func(*Tx) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return fn(&Tx{tx: tx}) })
}

// A Tx is one transaction.
type Tx struct {
	tx     *bolt.Tx
	counts map[share]uint64 // events by share, where this transaction changed them
}

// ErrNotFound is the error of every look-up without a result.
var ErrNotFound = errors.New("not found")

// ErrTaken says that a name, a MAC or a BMC already belongs to another machine; the error is a *Taken.
var ErrTaken = errors.New("taken")

// Taken names a name, MAC or BMC and the machine that it belongs to.
type Taken struct {
	What string // `name "web1"`, "MAC 52:54:00:12:34:56", "BMC 192.0.2.7"
	By   string // that machine's name
}

func (t *Taken) Error() string { return t.What + " is " + t.By + "'s" }

// Is makes every Taken an ErrTaken.
func (t *Taken) Is(target error) bool { return target == ErrTaken }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode puts the checksum before the JSON of v.
func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(out, crc32.Checksum(body, castagnoli))
	return append(out, body...), nil
}

func decode(key, raw []byte, v any) error {
	if len(raw) < 4 || binary.BigEndian.Uint32(raw) != crc32.Checksum(raw[4:], castagnoli) {
		return fmt.Errorf("record %q: checksum does not match, the database file is damaged", key)
	}
	if err := json.Unmarshal(raw[4:], v); err != nil {
		return fmt.Errorf("record %q: %w", key, err)
	}
	return nil
}

func get[T any](tx *Tx, bucket []byte, key string) (T, error) {
	var v T
	raw := tx.tx.Bucket(bucket).Get([]byte(key))
	if raw == nil {
		return v, fmt.Errorf("%s %q: %w", bucket, key, ErrNotFound)
	}
	return v, decode([]byte(key), raw, &v)
}

func put(tx *Tx, bucket []byte, key string, v any) error {
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("record %q: %w", key, err)
	}
	return tx.tx.Bucket(bucket).Put([]byte(key), raw)
}

func all[T any](tx *Tx, bucket []byte) ([]T, error) {
	var out []T
	err := tx.tx.Bucket(bucket).ForEach(func(k, raw []byte) error {
		var v T
		if err := decode(k, raw, &v); err != nil {
			return err
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// Machine finds a machine by its id.
func (tx *Tx) Machine(id inventory.MachineID) (inventory.Machine, error) {
	return get[inventory.Machine](tx, bucketMachines, string(id))
}

// Machines lists all machines, in the order of their ids.
func (tx *Tx) Machines() ([]inventory.Machine, error) {
	return all[inventory.Machine](tx, bucketMachines)
}

// PutMachine writes m and updates the indices of names, MACs and BMCs. A name, MAC or BMC of another machine
// is ErrTaken.
func (tx *Tx) PutMachine(m inventory.Machine) error {
	names, macs, bmcs := tx.tx.Bucket(bucketNames), tx.tx.Bucket(bucketMACs), tx.tx.Bucket(bucketBMCs)
	if err := tx.free(names, m.Name, m.ID, fmt.Sprintf("name %q", m.Name)); err != nil {
		return err
	}
	for _, mac := range m.MACs {
		if err := tx.free(macs, string(mac), m.ID, "MAC "+string(mac)); err != nil {
			return err
		}
	}
	if err := tx.free(bmcs, m.BMC.Address, m.ID, "BMC "+m.BMC.Address); err != nil {
		return err
	}
	if err := tx.unindex(m.ID); err != nil {
		return err
	}
	if err := names.Put([]byte(m.Name), []byte(m.ID)); err != nil {
		return err
	}
	for _, mac := range m.MACs {
		if err := macs.Put([]byte(mac), []byte(m.ID)); err != nil {
			return err
		}
	}
	if m.BMC.Address != "" {
		if err := bmcs.Put([]byte(m.BMC.Address), []byte(m.ID)); err != nil {
			return err
		}
	}
	m.Image = ""
	if err := tx.putStranger(m); err != nil {
		return err
	}
	return put(tx, bucketMachines, string(m.ID), m)
}

// free says whether a key of an index belongs to no machine, or to this one.
func (tx *Tx) free(index *bolt.Bucket, key string, id inventory.MachineID, what string) error {
	owner := inventory.MachineID(index.Get([]byte(key)))
	if owner == "" || owner == id {
		return nil
	}
	name := string(owner)
	if other, err := tx.Machine(owner); err == nil {
		name = other.Name
	}
	return &Taken{What: what, By: name}
}

// IndexBMCs rebuilds the index of BMCs from the machines: files of older releases have none. Of two machines
// with one BMC, the first has it.
func (tx *Tx) IndexBMCs(machines []inventory.Machine) error {
	if err := tx.tx.DeleteBucket(bucketBMCs); err != nil {
		return err
	}
	bmcs, err := tx.tx.CreateBucket(bucketBMCs)
	if err != nil {
		return err
	}
	for _, m := range machines {
		if key := []byte(m.BMC.Address); len(key) > 0 && bmcs.Get(key) == nil {
			if err := bmcs.Put(key, []byte(m.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteMachine deletes a machine with its deployments and its timeline.
func (tx *Tx) DeleteMachine(id inventory.MachineID) error {
	if err := tx.unindex(id); err != nil {
		return err
	}
	if err := tx.dropDeployments(id, 0, nil); err != nil {
		return err
	}
	for _, wire := range []bool{false, true} {
		if err := tx.trim(share{string(id), wire}, 0); err != nil {
			return err
		}
	}
	if err := tx.tx.Bucket(bucketStrangers).Delete([]byte(id)); err != nil {
		return err
	}
	return tx.tx.Bucket(bucketMachines).Delete([]byte(id))
}

// unindex removes the name, MACs and BMC of the stored machine from the indices.
func (tx *Tx) unindex(id inventory.MachineID) error {
	old, err := tx.Machine(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, mac := range old.MACs {
		if err := tx.tx.Bucket(bucketMACs).Delete([]byte(mac)); err != nil {
			return err
		}
	}
	bmcs, address := tx.tx.Bucket(bucketBMCs), []byte(old.BMC.Address)
	if string(bmcs.Get(address)) == string(id) {
		if err := bmcs.Delete(address); err != nil {
			return err
		}
	}
	return tx.tx.Bucket(bucketNames).Delete([]byte(old.Name))
}
