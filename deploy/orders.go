package deploy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/pxectl/pxectl/inventory"
)

// orderID names the order of a step. It is the same after a restart, and differs between attempts.
func orderID(d *inventory.Deployment, r *inventory.StepRecord) string {
	return fmt.Sprintf("%s-%s-%d", d.ID, r.Step, r.Attempt)
}

// order sets the order for the agent's part of a step.
func (w *worker) order(step inventory.Step) error {
	s := w.snap.Load()
	o := &inventory.Order{ID: orderID(s.d, s.record()), Target: s.d.Disk}
	if w.orders.is(o.ID) {
		return nil
	}
	switch step {
	case inventory.EraseDisks:
		return w.orderErase(o)
	case inventory.PrepareDisk:
		o.Do = inventory.DoPrepareDisk
		disk, err := chooseAgain(w.e.cfg.Image, s)
		if err != nil {
			return w.endStep("", err)
		}
		if err := w.claimDisk(disk); err != nil {
			return err
		}
		o.Target = &disk
		o.Image, o.Mode = w.orderImage(s), s.d.Mode
	case inventory.WriteImage:
		o.Do = inventory.DoWriteImage
		o.Image, o.Mode, o.Verify = w.orderImage(s), s.d.Mode, s.d.Verify
	case inventory.FinishDisk:
		o.Do, o.Image = inventory.DoFinishDisk, w.orderImage(s)
		seed, err := w.seed()
		if err != nil {
			return w.endStep("", fmt.Errorf("make the NoCloud seed: %w", err))
		}
		o.Seed = &seed
	}
	w.orders.set(o)
	return nil
}

func (w *worker) orderImage(s *snapshot) *inventory.OrderImage {
	return &inventory.OrderImage{
		ID:   s.d.ImageID,
		Name: s.d.ImageName,
		URL:  fmt.Sprintf("http://%s/images/%s/disk.zst", w.server(), s.d.ImageID),
	}
}

// claimDisk notes that what will be on the disk from now on is this deployment's.
func (w *worker) claimDisk(disk inventory.DiskIdentity) error {
	return w.save(func(m *inventory.Machine, d *inventory.Deployment) []inventory.Event {
		d.Disk, m.Disk, m.Holds = &disk, &disk, d.ID
		return nil
	})
}

// result takes the agent's result of an order. Only the current order's result counts. Any other is
// acknowledged, so that the agent stops repeating it.
func (w *worker) result(id string, r inventory.Result) error {
	if !w.orders.is(id) {
		w.wireLog().Info("a result of an order that no longer stands", "order", id, "error", r.Error)
		return nil
	}
	err := w.take(id, r)
	if err == nil {
		w.orders.set(nil)
	}
	return err
}

func (w *worker) take(id string, r inventory.Result) error {
	s := w.snap.Load()
	if id == "inspect-"+bootNonce(s.m) {
		return w.inspected(r)
	}
	rec := s.record()
	if rec == nil || orderID(s.d, rec) != id || rec.Step == inventory.BootOS {
		return nil // power-off or reboot: bootOS finds the proof itself
	}
	if r.Error != "" {
		cause := &inventory.Problem{Code: inventory.CodeInternal, Detail: r.Error, Hint: r.Hint}
		if r.Log != "" {
			w.e.NoteOwn(inventory.Event{
				Machine: w.id,
				Kind:    inventory.KindAgent,
				Text:    "log of " + id,
				Data:    map[string]string{inventory.DataLog: tail(r.Log, 4096)},
			})
		}
		return w.endStep("", cause)
	}
	switch {
	case rec.Step == inventory.EraseDisks && r.Erased != nil && r.Disk != nil:
		return w.erased(*r.Disk, *r.Erased)
	case rec.Step == inventory.PrepareDisk:
		return w.endStep("disk "+s.d.Disk.Name+" is cleared", nil)
	case rec.Step == inventory.WriteImage && r.Written != nil:
		kept := ""
		if r.Written.Kept > 0 {
			kept = fmt.Sprintf(" (%d were on the disk)", r.Written.Kept)
		}
		return w.endStep(fmt.Sprintf("%d chunks verified%s, %d read back; %s written, %s sent",
			r.Written.Chunks, kept, r.Written.ReadBack, humanize.IBytes(r.Written.Wrote),
			humanize.IBytes(r.Written.Sent)), nil,
			func(_ *inventory.Machine, d *inventory.Deployment) { d.Written = r.Written })
	case rec.Step == inventory.FinishDisk && r.Finished != nil:
		proof := fmt.Sprintf("%d partitions counted after the kernel re-read them", r.Finished.Partitions)
		if r.Finished.BootEntry != "" {
			proof += "; boot entry " + r.Finished.BootEntry
		}
		if r.Finished.Fallback != "" {
			proof += "; " + r.Finished.Fallback
		}
		for _, warning := range r.Finished.Warnings {
			w.e.NoteOwn(inventory.Event{Machine: w.id, Kind: inventory.KindAgent, Text: warning})
		}
		w.noteRemoved(r.Finished.Removed)
		return w.endStep(proof, nil,
			func(_ *inventory.Machine, d *inventory.Deployment) { d.Finished = r.Finished })
	}
	return w.endStep("", fmt.Errorf("the agent's result of %s carries no proof", rec.Step))
}

// noteRemoved puts on the timeline which boot entries the agent removed, so that an operator finds out why a
// machine does not start any more.
func (w *worker) noteRemoved(entries []string) {
	if len(entries) > 0 {
		w.e.NoteOwn(inventory.Event{
			Machine: w.id,
			Kind:    inventory.KindAgent,
			Text: "boot entries of the system that was on the disk removed: " +
				strings.Join(entries, ", "),
		})
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

func hintOf(err error) string {
	if p, ok := errors.AsType[*inventory.Problem](err); ok {
		return p.Hint
	}
	return ""
}
