package deploy

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

// validate checks all that a deployment needs, and touches nothing.
func (w *worker) validate(ctx context.Context, s *snapshot) outcome {
	if s.d.Erase != nil {
		return w.validateErase(ctx, s)
	}
	img, err := w.e.cfg.Image(s.d.ImageID)
	if err != nil {
		return outcome{err: err}
	}
	disk, err := writable(s.m, s.d.DiskHint, s.d.Overwrite, img)
	if err != nil {
		return outcome{err: err}
	}
	proof := fmt.Sprintf("image %s (%s), disk %s", img.Name, humanize.IBytes(img.RawSize),
		inventory.ListDisks([]inventory.Disk{disk}))
	said, err := w.bmcAnswers(ctx, s.m)
	if err != nil {
		return outcome{err: err}
	}
	id := disk.Identity()
	return outcome{
		proof: proof + said, update: func(_ *inventory.Machine, d *inventory.Deployment) { d.Disk = &id },
	}
}

// bmcAnswers checks that the BMC answers, and returns what the step's proof says of it.
func (w *worker) bmcAnswers(ctx context.Context, m inventory.Machine) (string, error) {
	if m.BMC.Address == "" {
		if m.BMC.Proposed != nil {
			return ", no BMC (" + diagnose.UnacceptedBMC(m) + ")", nil
		}
		return ", no BMC", nil
	}
	on, err := w.readPower(ctx, m)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(", BMC %s answers (power %s)", m.BMC.Address, onOff(on)), nil
}

// validateErase checks what an erase needs, and touches nothing.
func (w *worker) validateErase(ctx context.Context, s *snapshot) outcome {
	if _, err := eraseTargets(s.m); err != nil {
		return outcome{err: err}
	}
	said, err := w.bmcAnswers(ctx, s.m)
	if err != nil {
		return outcome{err: err}
	}
	return outcome{proof: "disks " + inventory.ListDisks(s.m.Report.Disks) + said}
}
