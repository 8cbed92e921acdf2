package leases

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/atomicfile"
	"github.com/pxectl/pxectl/internal/bug"
)

const (
	// Changes that may wait for the disk. At 20,000 a second this is most of a second,
	// after which clients ask again anyway.
	maxWaiting = 16384
	// The file is written anew when it is this big and most of it is out of date.
	compactAt = 1 << 20
	// After a sync that several changes shared, the next sync waits this long for more changes: each sync
	// costs 0.1 ms of CPU time, and no client notices 2 ms.
	gatherFor = 2 * time.Millisecond
	// Pause after the disk failed, for example because it is full.
	retryAfter = time.Second
)

// A journal is the lease file and the callers that wait for it. The next batch of changes gathers while one
// is synced, so a slow disk makes batches larger and not queues longer.
type journal struct {
	path     string
	log      *slog.Logger
	snapshot func() ([]byte, int) // the whole table as records, and their number

	// Only the goroutine in run uses these.
	file   *os.File
	size   int64
	start  int64     // size after the last compaction
	broken time.Time // when writing failed; zero: the file is whole

	mu      sync.Mutex
	wake    sync.Cond // of run
	bytes   []byte
	waiting []func(error)
	closed  bool
	told    sync.Cond // of tell
	results []result
	untold  int           // changes that run has taken and tell has not called back yet
	written bool          // run has ended
	ended   chan struct{} // closed when tell has ended
}

// A result is the outcome of one change, with its callback.
type result struct {
	done func(error)
	err  error
}

// openJournal reads the file and opens it; it makes a new one when there is none.
func openJournal(path string, log *slog.Logger) (*journal, []Lease, error) {
	j := &journal{path: path, log: log, ended: make(chan struct{})}
	j.wake.L, j.told.L = &j.mu, &j.mu
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("dhcp leases: %w", err)
	}
	var all []Lease
	switch {
	case len(raw) >= len(magic) && string(raw[:len(magic)]) == magic:
		var damaged int
		var last bool
		all, damaged, last = parseRecords(raw[len(magic):])
		if damaged > 0 && last {
			log.Info("dhcp: the last write to the lease file was cut off; nobody was told of it",
				"file", path, "bytes", damaged)
		} else if damaged > 0 {
			log.Error("dhcp: the lease file is damaged; what is whole in it is kept", "file", path,
				"bytes", damaged, "leases", len(all))
		}
	case len(raw) > 0:
		return nil, nil, fmt.Errorf(
			"dhcp leases: %s is no lease file of this version: move it away to start without leases", path)
	}
	// Begin with a new file: it has no cut-off record, and proves that we can write.
	all = latest(all)
	var records []byte
	for _, l := range all {
		records = appendRecord(records, l)
	}
	if err := j.replace(records); err != nil {
		return nil, nil, fmt.Errorf("dhcp leases: %w", err)
	}
	return j, all, nil
}

// latest is the last record of each address.
func latest(all []Lease) []Lease {
	seen := map[netip.Addr]bool{}
	var last []Lease
	for _, l := range slices.Backward(all) {
		if !seen[l.Addr] {
			seen[l.Addr] = true
			last = append(last, l)
		}
	}
	slices.Reverse(last)
	return last
}

// replace puts a new file with these records in the place of the old one.
func (j *journal) replace(records []byte) error {
	f, err := atomicfile.Replace(j.path, append([]byte(magic), records...), 0o600)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrite, err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size = f, int64(len(magic)+len(records))
	j.start = j.size
	return nil
}

func (j *journal) full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.waiting)+j.untold >= maxWaiting
}

// add queues changes that are made together: all of them or, with an error, none. The caller holds the
// table's lock, so the records have the order of the changes.
func (j *journal) add(done func(error), changed ...Lease) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	for _, l := range changed {
		j.bytes = appendRecord(j.bytes, l)
	}
	j.waiting = append(j.waiting, done)
	j.wake.Signal()
	return nil
}

// begin starts two goroutines: one writes, the other calls back, so that no write waits for an ACK to be
// sent.
func (j *journal) begin() {
	go j.run()
	go j.tell()
}

func (j *journal) run() {
	defer func() {
		j.mu.Lock()
		j.written, j.closed = true, true
		j.told.Broadcast()
		j.mu.Unlock()
	}()
	defer bug.Recover(j.log, "write the lease file")
	var bytes []byte
	var waiting []func(error)
	for {
		j.mu.Lock()
		for len(j.waiting) == 0 && !j.closed {
			j.wake.Wait()
		}
		if len(j.waiting) == 0 {
			j.mu.Unlock()
			return
		}
		bytes, j.bytes = j.bytes, bytes[:0]
		waiting, j.waiting = j.waiting, waiting[:0]
		j.untold += len(waiting)
		j.mu.Unlock()
		err := j.survive(bytes)
		j.mu.Lock()
		for i, done := range waiting {
			j.results = append(j.results, result{done, err})
			waiting[i] = nil
		}
		j.told.Signal()
		j.mu.Unlock()
		if len(waiting) > 1 {
			time.Sleep(gatherFor)
		}
	}
}

// survive writes a batch. After a panic it has the file written anew, as after any other failure.
func (j *journal) survive(b []byte) (err error) {
	whole := false
	defer func() {
		if !whole {
			j.broken = time.Now()
		}
	}()
	defer bug.Return(j.log, "write the lease file", &err)
	err = j.write(b)
	whole = true
	return err
}

// tell calls back with the results of changes, in their order.
func (j *journal) tell() {
	defer close(j.ended)
	defer bug.Recover(j.log, "tell of leases")
	var results []result
	for {
		j.mu.Lock()
		for len(j.results) == 0 && !j.written {
			j.told.Wait()
		}
		if len(j.results) == 0 {
			j.mu.Unlock()
			return
		}
		results, j.results = j.results, results[:0]
		j.mu.Unlock()
		for i, r := range results {
			j.tellOne(r)
			results[i] = result{}
		}
		j.mu.Lock()
		j.untold -= len(results)
		j.mu.Unlock()
	}
}

// tellOne has its own recover, so that the next client still gets its ACK after a panic.
func (j *journal) tellOne(r result) {
	defer bug.Recover(j.log, "tell of a lease that was written")
	r.done(r.err)
}

// write makes a batch durable.
func (j *journal) write(b []byte) error {
	if !j.broken.IsZero() {
		if time.Since(j.broken) < retryAfter {
			return fmt.Errorf("%w: %s: tried a moment ago", ErrWrite, j.path)
		}
		// A failed write or fsync leaves the file in an unknown state, so nothing is appended to it again.
		return j.compact()
	}
	_, err := j.file.Write(b)
	if err == nil {
		err = unix.Fdatasync(int(j.file.Fd()))
	}
	if err != nil {
		j.broken = time.Now()
		j.log.Error("dhcp: no lease is given while the lease file cannot be written", "file", j.path,
			"err", err)
		return fmt.Errorf("%w: %s: %w", ErrWrite, j.path, err)
	}
	j.size += int64(len(b))
	if j.size > compactAt && j.size > 4*j.start {
		// This batch is on the disk, even if compact fails.
		if err := j.compact(); err != nil {
			j.log.Error("dhcp: the lease file cannot be compacted", "file", j.path, "err", err)
		}
	}
	return nil
}

// compact writes the table anew, which includes every change that was queued until now.
func (j *journal) compact() error {
	records, n := j.snapshot()
	if err := j.replace(records); err != nil {
		j.broken = time.Now()
		return err
	}
	if !j.broken.IsZero() {
		j.log.Info("dhcp: the lease file can be written again", "file", j.path, "leases", n)
	}
	j.broken = time.Time{}
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	j.closed = true
	j.wake.Broadcast()
	j.mu.Unlock()
	<-j.ended
	return j.file.Close()
}
