package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/agent-ramdisk/efi"
	"github.com/pxectl/pxectl/inventory"
)

// makeBootable puts the new system into the firmware's menu, and names what may keep it from starting. None of
// that fails the order: most firmware starts the system anyway, and whether it did is for the deployment's last step to say.
func (a *Agent) makeBootable(dev *disk.Device, order inventory.Order, done *inventory.Finished) {
	_, err := os.Stat(a.EFI)
	uefi := err == nil
	signs := disk.ReadSigns(dev, dev.Size, dev.Sector, runtime.GOARCH)
	var others [][16]byte // partitions that boot entries may name
	disks, err := a.Disks()
	if err != nil {
		a.warn(done, fmt.Sprintf("other disks were not looked at: %v", err))
	}
	for _, d := range disks {
		if d.Name == dev.Name || d.Bytes == 0 {
			continue
		}
		other, err := a.signs(d.Name)
		if err != nil {
			a.warn(done, fmt.Sprintf("disk %s was not looked at: %v", d.Name, err))
			continue
		}
		others = append(others, other.Signatures...)
		for _, w := range signs.Rivals(d.Name, other, uefi) {
			a.warn(done, w)
		}
	}
	if !uefi {
		return
	}
	fallback := disk.FallbackLoader(runtime.GOARCH)
	i := slices.IndexFunc(signs.ESPs, func(e disk.ESP) bool { return e.Loader != "" })
	switch {
	case len(signs.ESPs) == 0:
		a.warn(done, "the machine started by UEFI, and the image has no EFI system partition: use an image for UEFI, or set the firmware to BIOS")
		return
	case i < 0:
		a.warn(done, fmt.Sprintf("the image's EFI system partition has no boot loader: neither %s nor one of a distribution for this machine", fallback))
		return
	case !signs.ESPs[i].Fallback:
		a.warn(done, fmt.Sprintf("the image has no %s: firmware that loses or ignores the boot entry for %s does not start it", fallback, signs.ESPs[i].Loader))
	}
	vars := efi.Vars{Dir: filepath.Join(a.EFI, "efivars")}
	if !vars.Present() {
		a.Log.Info("no boot entry: the kernel has no access to the firmware's variables")
		return
	}
	name := dev.Name
	if order.Image != nil && order.Image.Name != "" {
		name = order.Image.Name
	}
	esp := signs.ESPs[i]
	partition := efi.Partition{Number: uint32(esp.Number), First: esp.First, Sectors: esp.Sectors, Signature: esp.Signature, MBR: esp.MBR}
	alive := func(signature [16]byte) bool { return slices.Contains(others, signature) }
	if done.BootEntry, err = vars.SetBoot(name, partition, esp.Loader, alive); err != nil {
		a.warn(done, fmt.Sprintf("no boot entry was made: %v", err))
	}
}

func (a *Agent) warn(done *inventory.Finished, text string) {
	a.Log.Warn(text)
	done.Warnings = append(done.Warnings, text)
}

// signs reads them from another disk of the machine.
func (a *Agent) signs(name string) (disk.Signs, error) {
	f, err := os.Open(filepath.Join(a.Dev, name))
	if err != nil {
		return disk.Signs{}, err
	}
	defer f.Close()
	size, sector, err := disk.Geometry(f)
	if err != nil {
		return disk.Signs{}, err
	}
	return disk.ReadSigns(f, size, sector, runtime.GOARCH), nil
}
