package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/agent-ramdisk/erase"
	"github.com/pxectl/pxectl/inventory"
)

// maxErases is how many disks are erased at a time. Drives do most of the work themselves; each takes 8 MiB
// of our memory.
const maxErases = 8

// eraseDisks erases the disks of an order, several at a time. It reports each erased disk at once, so that
// its record does not depend on the others. A failure ends the order for the appliance, so it is reported
// after all disks.
func (a *Agent) eraseDisks(ctx context.Context, order inventory.Order) error {
	a.Settle(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := a.reporter(ctx, cancel, order)
	all := &eraseProgress{quick: order.Quick, disks: make([]diskProgress, len(order.Targets)), tell: p.set}
	for i, t := range order.Targets {
		all.disks[i].total = t.Bytes
	}
	results := make([]inventory.Result, len(order.Targets))
	slots := make(chan struct{}, maxErases)
	var wg sync.WaitGroup
	for i := range order.Targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return // not begun, and no longer wanted
			}
			r := a.eraseOnce(ctx, order, &order.Targets[i], func(method string, done, _ uint64) {
				all.at(i, method, done)
			})
			if results[i] = r; r.Error == "" {
				if err := a.report(ctx, order, r); err != nil {
					cancel(err)
				}
			}
			all.end(i, r.Error == "")
		})
	}
	wg.Wait()
	p.stop()
	failed := slices.DeleteFunc(results, func(r inventory.Result) bool { return r.Error == "" })
	err := context.Cause(ctx)
	if err == nil && (len(failed) > 0 || len(results) == 0) {
		err = a.report(ctx, order, joinFailures(failed))
	}
	if errors.Is(err, errGone) {
		a.Log.Warn("the erase is not wanted any more", "id", order.ID, "err", err)
		return nil
	}
	return err
}

func (a *Agent) report(ctx context.Context, order inventory.Order, r inventory.Result) error {
	return a.retry(ctx, "report the result of "+order.Do, func() error {
		return a.Client.result(ctx, order.ID, r)
	})
}

// joinFailures makes one result of the failed ones.
func joinFailures(failed []inventory.Result) inventory.Result {
	if len(failed) == 0 {
		return inventory.Result{Error: "the order names no disk"}
	}
	all := failed[0]
	for _, f := range failed[1:] {
		all.Error += "; " + f.Error
		if all.Hint == "" {
			all.Hint = f.Hint
		}
	}
	return all
}

// eraseOnce erases a disk. If this order has erased it before, it returns that result.
func (a *Agent) eraseOnce(
	ctx context.Context, order inventory.Order, target *inventory.DiskIdentity, tell erase.Progress,
) inventory.Result {
	key := order.ID + " " + target.Said()
	a.mu.Lock()
	result, again := a.results[key]
	a.mu.Unlock()
	if again {
		return result
	}
	result = a.attempt(order.Do+" "+target.Name, func(r *inventory.Result) (err error) {
		r.Erased, err = a.eraseDisk(ctx, target, order.Quick, tell)
		return err
	})
	result.Disk = target
	if ctx.Err() == nil {
		a.mu.Lock()
		a.results[key] = result
		a.mu.Unlock()
	}
	return result
}

// eraseDisk erases a disk, or with quick clears its labels and tables.
func (a *Agent) eraseDisk(
	ctx context.Context, target *inventory.DiskIdentity, quick bool, tell erase.Progress,
) (*inventory.Erased, error) {
	dev, err := a.open(ctx, target)
	if err != nil {
		return nil, err
	}
	name := dev.Name
	a.mu.Lock()
	delete(a.zeros, name)
	a.mu.Unlock()
	a.rememberPartitions(dev)
	if quick {
		defer dev.Close()
		cleared, err := clearLabels(dev)
		if err == nil {
			a.forgetErased(name, cleared)
		}
		return cleared, err
	}
	if err := dev.Close(); err != nil {
		return nil, err
	}
	method := ""
	erased, err := erase.Disk(ctx, filepath.Join(a.Dev, name), func(now string, done, total uint64) {
		if now != method {
			method = now
			a.Log.Info("erase", "disk", name, "by", method)
		}
		tell(now, done, total)
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause // the cause of the cancellation says more than err
	}
	if err != nil {
		return nil, &hintError{
			err,
			"nothing says that the data is gone: erase the disk by other means, or destroy it; " +
				"`pxectl release --quick` clears its labels alone",
		}
	}
	a.forgetErased(name, erased)
	a.Log.Info("erased", "disk", name, "by", erased.Method, "proof", erased.Proof)
	return erased, nil
}

// forgetErased removes the boot entries of the old system. The disk counts as erased even if entries are
// left.
func (a *Agent) forgetErased(name string, done *inventory.Erased) {
	var err error
	if done.Removed, err = a.forgetEntries(name); err != nil {
		a.Log.Warn("boot entries of what was on the disk are left", "disk", name, "err", err)
	}
}

func clearLabels(dev *disk.Device) (*inventory.Erased, error) {
	began := time.Now()
	if _, err := dev.Prepare(0); err != nil {
		return nil, broken(err)
	}
	return &inventory.Erased{
		Method: inventory.MethodMetadata, Bytes: uint64(dev.Size), TookMS: time.Since(began).Milliseconds(),
		Proof: "no signature of a system is left; the data was not erased",
	}, nil
}

// An eraseProgress adds up the progress of several disks.
type eraseProgress struct {
	quick bool
	tell  func(inventory.Progress)

	mu    sync.Mutex
	disks []diskProgress
}

type diskProgress struct {
	method        string // "" until its turn
	done, total   uint64
	ended, failed bool
}

// at notes the progress of a disk with a method. A new method begins at the start of the disk again.
func (e *eraseProgress) at(i int, method string, done uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.disks[i].method, e.disks[i].done = method, min(done, e.disks[i].total)
	e.tell(e.progress())
}

// end notes that a disk is done or was given up.
func (e *eraseProgress) end(i int, well bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := &e.disks[i]
	if d.ended, d.failed = true, !well; well {
		d.done = d.total
	}
	e.tell(e.progress())
}

// progress counts the bytes of all disks. Its phase names the methods in use, and how many disks have ended.
func (e *eraseProgress) progress() inventory.Progress {
	var p inventory.Progress
	var methods []string
	ended, failed := 0, 0
	for _, d := range e.disks {
		p.Done, p.Total = p.Done+d.done, p.Total+d.total
		switch {
		case d.failed:
			failed++
		case d.ended:
			ended++
		case d.method != "" && !slices.Contains(methods, d.method):
			methods = append(methods, d.method)
		}
	}
	if len(e.disks) == 1 {
		p.Phase = e.disks[0].method
		return p
	}
	p.Phase = strings.Join(methods, ", ")
	verb := "erased"
	if e.quick {
		verb = "cleared"
	}
	count := fmt.Sprintf("%d of %d disks %s", ended, len(e.disks), verb)
	if failed > 0 {
		count += fmt.Sprintf(", %d failed", failed)
	}
	if p.Phase != "" {
		count += "; " + p.Phase
	}
	p.Phase = count
	return p
}
