package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/agent-ramdisk/erase"
	"github.com/pxectl/pxectl/inventory"
)

// eraseDisk erases the disk that the order names, or with Quick only what a system would be found by.
func (a *Agent) eraseDisk(ctx context.Context, order inventory.Order) (*inventory.Erased, error) {
	dev, err := a.open(ctx, order.Target)
	if err != nil {
		return nil, err
	}
	delete(a.zeros, dev.Name)
	a.remember(dev)
	name := dev.Name
	if order.Quick {
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := a.reporter(ctx, cancel, order)
	defer p.stop()
	rung := ""
	erased, err := erase.Disk(ctx, filepath.Join(a.Dev, name), func(now string, done, total uint64) {
		if now != rung {
			rung = now
			a.Log.Info("erase", "disk", name, "by", rung)
		}
		p.set(inventory.Progress{Phase: now, Done: done, Total: total})
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

// forgetErased removes the boot entries of the old system. That they are left is no reason to call the disk not erased.
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
