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

// makeBootable puts the new system into the firmware's menu, gives it a loader that firmware finds without, and names what may keep it from
// starting. Little of that fails the order: most firmware starts the system anyway, and whether it did is for the deployment's last step to
// say. It fails when there is neither a boot entry nor such a loader, although the image has one. It may close dev.
func (a *Agent) makeBootable(dev *disk.Device, order inventory.Order, done *inventory.Finished) error {
	_, err := os.Stat(a.EFI)
	uefi := err == nil
	signs := disk.ReadSigns(dev, dev.Size, dev.Sector, runtime.GOARCH)
	others := a.rivals(dev.Name, signs, uefi, done)
	if !uefi {
		return nil
	}
	fallback := disk.FallbackLoader(runtime.GOARCH)
	i := slices.IndexFunc(signs.ESPs, func(e disk.ESP) bool { return e.Loader != "" })
	switch {
	case len(signs.ESPs) == 0:
		a.warn(done, "the machine started by UEFI, and the image has no EFI system partition: use an image for UEFI, or set the firmware to BIOS")
		return nil
	case i < 0:
		a.warn(done, fmt.Sprintf("the image's EFI system partition has no boot loader: neither %s nor one of a distribution for this machine", fallback))
		return nil
	}
	esp := signs.ESPs[i]
	var missing error
	if !esp.Fallback {
		missing = a.copyFallback(dev, esp, done)
	}
	alive := func(signature [16]byte) bool { return slices.Contains(others, signature) }
	a.makeEntry(dev.Name, order, esp, alive, done)
	switch {
	case missing != nil && done.BootEntry == "":
		return &hinted{
			fmt.Errorf("nothing would start the system: there is no boot entry for %s, and no %s could be made: %w", esp.Loader, fallback, missing),
			"use an image that has " + fallback + ", or let the kernel write the firmware's variables (no efi=noruntime)",
		}
	case missing != nil:
		a.warn(done, fmt.Sprintf("the image has no %s, and none could be made (%v): firmware that loses or ignores the boot entry for %s does not start it",
			fallback, missing, esp.Loader))
	}
	return nil
}

// rivals names what is on other disks that could get in the new system's way, and returns the partitions there that boot entries may name.
func (a *Agent) rivals(name string, signs disk.Signs, uefi bool, done *inventory.Finished) (others [][16]byte) {
	disks, err := a.Disks()
	if err != nil {
		a.warn(done, fmt.Sprintf("other disks were not looked at: %v", err))
	}
	for _, d := range disks {
		if d.Name == name || d.Bytes == 0 {
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
	return others
}

// makeEntry makes the boot entry. An agent that has no access to the firmware's variables makes none.
func (a *Agent) makeEntry(name string, order inventory.Order, esp disk.ESP, alive func([16]byte) bool, done *inventory.Finished) {
	vars := efi.Vars{Dir: filepath.Join(a.EFI, "efivars")}
	if !vars.Present() {
		a.Log.Info("no boot entry: the kernel has no access to the firmware's variables")
		return
	}
	if order.Image != nil && order.Image.Name != "" {
		name = order.Image.Name
	}
	partition := efi.Partition{Number: uint32(esp.Number), First: esp.First, Sectors: esp.Sectors, Signature: esp.Signature, MBR: esp.MBR}
	var err error
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
