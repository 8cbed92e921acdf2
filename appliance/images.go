package appliance

import (
	"errors"
	"fmt"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

// findImage looks an image up for a deployment, and makes sure that its manifest is whole.
func findImage(s *store.Store, ref string) (deploy.Image, error) {
	info, err := s.Get(ref)
	if err != nil {
		return deploy.Image{}, imageProblem(ref, err)
	}
	if _, _, err := s.Manifest(info.ID); err != nil {
		return deploy.Image{}, imageProblem(ref, err)
	}
	img := deploy.Image{
		ID: info.ID, Name: info.Name, RawSize: uint64(info.RawSize), SectorSize: info.SectorSize,
		Stored: uint64(info.DataSize),
	}
	if info.System != nil {
		img.Smallest, img.Fault = uint64(info.System.Smallest), info.System.Fault
	}
	return img, nil
}

func imageProblem(ref string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no image %q", ref),
			Hint:   "`pxectl image list` shows the images there are, `pxectl image import FILE` adds one",
			Err:    err,
		}
	}
	return err
}

// guardedImages is the image store, but does not delete an image that a running deployment needs.
type guardedImages struct {
	*store.Store
	engine *deploy.Engine
}

func (g guardedImages) Delete(ref string) (store.Info, error) {
	info, err := g.Get(ref)
	if err != nil {
		return info, err
	}
	if machine, ok := g.engine.ImageInUse(info.ID); ok {
		return info, &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: fmt.Sprintf("image %s is being written to %s", info.Name, machine),
			Hint:   "wait for the deployment, or cancel it: `pxectl deployment list`",
		}
	}
	return g.Store.Delete(info.ID)
}
