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

// sideBySide is how many disks are erased at a time. Drives do most of the work themselves; what we hold for
// each is 8 MiB.
const sideBySide = 8

// eraseDisks erases the disks of an order side by side. What was erased is reported at once: its record shall
// not depend on the other disks. A failure ends the order for the appliance, and so waits until all disks
// have ended.
func (a *Agent) eraseDisks(ctx context.Context, order inventory.Order) error {
	a.Settle(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := a.reporter(ctx, cancel, order)
	all := &erasing{quick: order.Quick, disks: make([]erasingDisk, len(order.Targets)), tell: p.set}
	for i, t := range order.Targets {
		all.disks[i].total = t.Bytes
	}
	results := make([]inventory.Result, len(order.Targets))
	slots := make(chan struct{}, sideBySide)
	var wg sync.WaitGroup
	for i := range order.Targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return // not begun, and not wanted any more
			}
			r := a.eraseOnce(ctx, order, &order.Targets[i], func(method string, done, _ uint64) { all.at(i, method, done) })
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
		err = a.report(ctx, order, joined(failed))
	}
	if errors.Is(err, errGone) {
		a.Log.Warn("the erase is not wanted any more", "id", order.ID, "err", err)
		return nil
	}
	return err
}

func (a *Agent) report(ctx context.Context, order inventory.Order, r inventory.Result) error {
	return a.insist(ctx, "report the result of "+order.Do, func() error { return a.Client.result(ctx, order.ID, r) })
}

// joined is one result of several that failed.
func joined(failed []inventory.Result) inventory.Result {
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

// eraseOnce erases a disk, or gives the result again if this order did so before.
func (a *Agent) eraseOnce(ctx context.Context, order inventory.Order, target *inventory.DiskIdentity, tell erase.Progress) inventory.Result {
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

// eraseDisk erases a disk, or with quick only what a system would be found by.
func (a *Agent) eraseDisk(ctx context.Context, target *inventory.DiskIdentity, quick bool, tell erase.Progress) (*inventory.Erased, error) {
	dev, err := a.open(ctx, target)
	if err != nil {
		return nil, err
	}
	name := dev.Name
	a.mu.Lock()
	delete(a.zeros, name)
	a.mu.Unlock()
	a.remember(dev)
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
		return nil, cause // why it was cancelled says more than that it was
	}
	if err != nil {
		return nil, &hinted{err, "nothing says that the data is gone: erase the disk by other means, or destroy it; `pxectl release --quick` clears its labels alone"}
	}
	a.forgetErased(name, erased)
	a.Log.Info("erased", "disk", name, "by", erased.Method, "proof", erased.Proof)
	return erased, nil
}

// forgetErased removes the boot entries of the old system. That they are left is no reason to call the disk
// not erased.
func (a *Agent) forgetErased(name string, done *inventory.Erased) {
	var err error
	if done.Removed, err = a.forget(name); err != nil {
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

// An erasing is how far several disks are, told as one.
type erasing struct {
	quick bool
	tell  func(inventory.Progress)

	mu    sync.Mutex
	disks []erasingDisk
}

type erasingDisk struct {
	method        string // "" while it waits for its turn
	done, total   uint64
	ended, failed bool
}

// at notes how far a disk is on a method. Another method begins at the start of the disk again.
func (e *erasing) at(i int, method string, done uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.disks[i].method, e.disks[i].done = method, min(done, e.disks[i].total)
	e.tell(e.progress())
}

// end notes that a disk is done, or that no more will be done to it.
func (e *erasing) end(i int, well bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := &e.disks[i]
	if d.ended, d.failed = true, !well; well {
		d.done = d.total
	}
	e.tell(e.progress())
}

// progress counts the bytes of all disks. Its phase says by which methods disks are being erased, and how many
// are not any more.
func (e *erasing) progress() inventory.Progress {
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
