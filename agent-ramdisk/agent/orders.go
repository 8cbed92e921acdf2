package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// execute carries out the order and fills in the proof.
func (a *Agent) execute(ctx context.Context, order inventory.Order, result *inventory.Result) (err error) {
	a.Settle(ctx)
	if order.Do == inventory.DoInspect {
		report := a.Report().Bounded(cmp.Or(order.MaxReport, inventory.StrangerReport))
		result.Report = &report
		for _, p := range result.Report.Problems {
			a.Log.Warn("inspect", "problem", p)
		}
		return nil
	}
	switch order.Do {
	case inventory.DoPrepareDisk, inventory.DoWriteImage, inventory.DoFinishDisk:
	default:
		return tooOld(fmt.Errorf("unknown order %q", order.Do))
	}
	dev, err := a.open(ctx, order.Target)
	if err != nil {
		return err
	}
	defer dev.Close()
	switch order.Do {
	case inventory.DoPrepareDisk:
		return a.prepareDisk(ctx, dev, order)
	case inventory.DoWriteImage:
		result.Written, err = a.writeImage(ctx, dev, order)
	case inventory.DoFinishDisk:
		if order.Seed == nil {
			return errors.New("finish-disk: the order has no seed")
		}
		if result.Finished, err = dev.Finish(*order.Seed); err == nil {
			err = a.makeBootable(dev, order, result.Finished)
		}
	}
	return err
}

// find lists the disks that match the identity, and all disks. It waits until one appears.
func (a *Agent) find(
	ctx context.Context, id inventory.DiskIdentity,
) (found, all []inventory.Disk, err error) {
	for deadline := time.Now().Add(a.DiskWait); ; {
		if all, err = a.Disks(); err != nil {
			return nil, nil, err
		}
		found = id.Find(all)
		if len(found) > 0 || time.Now().After(deadline) {
			return found, all, nil
		}
		if err := sleep.For(ctx, 250*time.Millisecond); err != nil {
			return nil, nil, err
		}
	}
}

// open finds the disk that was chosen for the order, and opens it.
func (a *Agent) open(ctx context.Context, id *inventory.DiskIdentity) (*disk.Device, error) {
	if id == nil {
		return nil, errors.New("the order names no disk")
	}
	const again = "inspect the machine again and choose a disk of those that it has"
	found, disks, err := a.find(ctx, *id)
	if err != nil {
		return nil, err
	}
	switch {
	case len(found) == 0:
		return nil, &hintError{
			fmt.Errorf("disk %s (serial %q, WWN %q, %d bytes) is not there any more or has changed (have: %s)",
				id.Name, id.Serial, id.WWN, id.Bytes, inventory.ListDisks(disks)), again,
		}
	case len(found) > 1:
		return nil, &hintError{
			fmt.Errorf("%d disks could be the chosen one: %s", len(found), inventory.ListDisks(found)), again,
		}
	case found[0].ReadOnly:
		return nil, &hintError{
			fmt.Errorf("disk %s is read-only", found[0].Name), "check its write-protect switch or controller",
		}
	}
	dev, err := disk.OpenDevice(filepath.Join(a.Dev, found[0].Name))
	if err != nil {
		return nil, err
	}
	if uint64(dev.Size) != id.Bytes {
		defer dev.Close()
		return nil, &hintError{
			fmt.Errorf("disk %s holds %d bytes, was chosen with %d", dev.Name, dev.Size, id.Bytes), again,
		}
	}
	return dev, nil
}

// prepareDisk clears the disk. It needs the image to know what a delta write can use.
func (a *Agent) prepareDisk(ctx context.Context, dev *disk.Device, order inventory.Order) error {
	var keep int64
	if order.Image != nil {
		m, err := a.manifest(ctx, order.Image.ID)
		if err != nil {
			return err
		}
		if err := dev.Fits(m); err != nil {
			return err
		}
		delta, err := a.wantsDelta(dev, m, order.Mode)
		if err != nil {
			return err
		}
		if delta {
			keep = m.RawSize
		}
	}
	a.rememberPartitions(dev)
	p, err := dev.Prepare(keep)
	if err != nil {
		return broken(err)
	}
	a.zeros[dev.Name] = p.Zeros
	a.Log.Info("disk prepared", "disk", dev.Name, "kept", keep, "discarded", p.Discarded,
		"reads_zeros", p.Zeros)
	return nil
}

// wantsDelta chooses how the image gets on the disk.
func (a *Agent) wantsDelta(dev *disk.Device, m *images.Manifest, mode string) (bool, error) {
	switch mode {
	case inventory.ModeFull:
		return false, nil
	case inventory.ModeDelta:
		return true, nil
	case inventory.ModeAuto, "":
		return !a.zeros[dev.Name] && dev.Resembles(m), nil
	}
	return false, tooOld(fmt.Errorf("unknown mode %q", mode))
}

func tooOld(err error) error {
	return &hintError{
		err, "the agent is older than the appliance: build the ramdisk again and reboot the machine",
	}
}

// broken adds the next move to an error of the disk.
func broken(err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) ||
		errors.Is(err, unix.EREMOTEIO) {
		return &hintError{
			err,
			"the disk or the way to it is broken: " +
				"check cable, controller and the disk's own health report, or replace it",
		}
	}
	return err
}

func (a *Agent) writeImage(
	ctx context.Context, dev *disk.Device, order inventory.Order,
) (*inventory.Written, error) {
	if order.Image == nil {
		return nil, errors.New("write-image: the order names no image")
	}
	w := disk.Write{HashOnly: order.Verify == inventory.VerifyHash, Zeros: a.zeros[dev.Name]}
	if !w.HashOnly && order.Verify != "" && order.Verify != inventory.VerifyReadBack {
		return nil, tooOld(fmt.Errorf("unknown way to verify %q", order.Verify))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var err error
	if w.Manifest, err = a.manifest(ctx, order.Image.ID); err != nil {
		return nil, err
	}
	if w.Delta, err = a.wantsDelta(dev, w.Manifest, order.Mode); err != nil {
		return nil, err
	}
	fetcher := images.Fetcher{
		Client:   plainHTTP,
		URL:      order.Image.URL,
		ID:       order.Image.ID,
		Attempts: 60, // at most 10 s apart: an appliance that was killed or is being replaced comes back
		Backoff:  a.Backoff,
	}
	w.Fetch = fetcher.Fetch
	p := a.reporter(ctx, cancel, order)
	defer p.stop()
	w.Progress = p.set
	a.zeros[dev.Name] = false
	written, err := dev.Write(ctx, w)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause // the cause of the cancellation says more than err
	}
	if err != nil {
		return nil, broken(err)
	}
	a.Log.Info("image written", "mode", written.Mode, "kept", written.Kept, "fetched", written.Fetched,
		"zeroed", written.Zeroed, "read_back", written.ReadBack)
	return written, nil
}

// manifest fetches an image's manifest and checks it against the image's id.
func (a *Agent) manifest(ctx context.Context, id string) (*images.Manifest, error) {
	var m *images.Manifest
	var refused error
	err := a.retry(ctx, "fetch the manifest", func() (err error) {
		m, refused, err = a.Client.manifest(ctx, a.Registration.BootID, id)
		return err
	})
	if err := cmp.Or(err, refused); err != nil {
		return nil, fmt.Errorf("manifest of image %s: %w", id, err)
	}
	return m, nil
}

// plainHTTP fetches chunks. It has no Timeout: the Fetcher watches for stalls.
var plainHTTP = &http.Client{Transport: &http.Transport{
	DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	MaxIdleConnsPerHost: 8,
	DisableCompression:  true,
}}

// A reporter sends the newest progress once a second, and now and then logs a line.
type reporter struct {
	mu     sync.Mutex
	newest inventory.Progress
	over   chan struct{}
	wg     sync.WaitGroup
}

func (r *reporter) set(p inventory.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest = p
}

func (r *reporter) stop() {
	close(r.over)
	r.wg.Wait()
}

func (a *Agent) reporter(
	ctx context.Context, cancel context.CancelCauseFunc, order inventory.Order,
) *reporter {
	r := &reporter{over: make(chan struct{})}
	r.wg.Go(func() {
		var sent inventory.Progress
		logged := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-r.over:
				return
			}
			r.mu.Lock()
			p := r.newest
			r.mu.Unlock()
			if p == sent {
				continue
			}
			sent = p
			p.BootID = a.Registration.BootID
			// A lost report does no harm: the next one says more.
			short, done := context.WithTimeout(ctx, 5*time.Second)
			if err := a.Client.progress(short, order.ID, p); errors.Is(err, errGone) ||
				errors.Is(err, ErrNonce) {
				cancel(err)
			}
			done()
			if time.Since(logged) >= 5*time.Second && p.Total > 0 {
				logged = time.Now()
				a.Log.Info(fmt.Sprintf("%s: %s %d%% of %d MiB", order.Do, p.Phase, 100*p.Done/p.Total,
					p.Total>>20))
			}
		}
	})
	return r
}
