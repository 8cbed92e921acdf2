package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/agent-ramdisk/efi"
	"github.com/pxectl/pxectl/internal/efiloader"
	"github.com/pxectl/pxectl/inventory"
)

// makeBootable adds a boot entry for the new system, gives it a loader that firmware finds without an entry,
// and warns of whatever may keep it from starting. It fails only when there is neither an entry nor such a
// loader, although the image has one: most firmware starts the system anyway, and the deployment's last step
// proves that. It may close dev.
func (a *Agent) makeBootable(dev *disk.Device, order inventory.Order, done *inventory.Finished) error {
	_, err := os.Stat(a.EFI)
	uefi := err == nil
	scan := disk.ScanBoot(dev, dev.Size, dev.Sector, runtime.GOARCH)
	others := a.conflicts(dev.Name, scan, uefi, done)
	if !uefi {
		return nil
	}
	if done.Removed, err = a.forgetEntries(dev.Name); err != nil {
		a.warn(done, fmt.Sprintf("boot entries of the system that was on disk %s before are left: %v",
			dev.Name, err))
	}
	fallback := efiloader.Fallback(runtime.GOARCH)
	i := slices.IndexFunc(scan.ESPs, func(e disk.ESP) bool { return e.Loader != "" })
	switch {
	case len(scan.ESPs) == 0:
		a.warn(done,
			"the machine started by UEFI, and the image has no EFI system partition: "+
				"use an image for UEFI, or set the firmware to BIOS")
		return nil
	case i < 0:
		a.warn(done,
			fmt.Sprintf("the image's EFI system partition has no boot loader: "+
				"neither %s nor one of a distribution for this machine", fallback))
		return nil
	}
	esp := scan.ESPs[i]
	var missing error
	if !esp.Fallback {
		missing = a.copyFallback(dev, esp, done)
	}
	a.makeEntry(dev.Name, order, esp, others, done)
	switch {
	case missing != nil && done.BootEntry == "":
		return &hintError{
			fmt.Errorf("nothing would start the system: there is no boot entry for %s, "+
				"and no %s could be made: %w", esp.Loader, fallback, missing),
			"use an image that has " + fallback +
				", or let the kernel write the firmware's variables (no efi=noruntime)",
		}
	case missing != nil:
		a.warn(done,
			fmt.Sprintf("the image has no %s, and none could be made (%v): "+
				"firmware that loses or ignores the boot entry for %s does not start it",
				fallback, missing, esp.Loader))
	}
	return nil
}

// conflicts names systems on other disks that may start instead, and returns the partitions there that boot
// entries may name.
func (a *Agent) conflicts(
	name string, scan disk.BootScan, uefi bool, done *inventory.Finished,
) (others [][16]byte) {
	disks, err := a.Disks()
	if err != nil {
		a.warn(done, fmt.Sprintf("other disks were not looked at: %v", err))
	}
	for _, d := range disks {
		if d.Name == name || d.Bytes == 0 {
			continue
		}
		other, err := a.scan(d.Name)
		if err != nil {
			a.warn(done, fmt.Sprintf("disk %s was not looked at: %v", d.Name, err))
			continue
		}
		others = append(others, other.Signatures...)
		for _, w := range scan.Conflicts(d.Name, other, uefi) {
			a.warn(done, w)
		}
	}
	return others
}

// makeEntry makes the boot entry. Without access to the firmware's variables it makes none.
func (a *Agent) makeEntry(
	name string, order inventory.Order, esp disk.ESP, others [][16]byte, done *inventory.Finished,
) {
	vars := a.vars()
	if !vars.Present() {
		a.Log.Info("no boot entry: the kernel has no access to the firmware's variables")
		return
	}
	label := name
	if order.Image != nil && order.Image.Name != "" {
		label = order.Image.Name
	}
	partition := efi.Partition{
		Number: uint32(esp.Number), First: esp.First, Sectors: esp.Sectors, Signature: esp.Signature,
		MBR: esp.MBR,
	}
	entry, replaced, err := vars.SetBoot(label, partition, esp.Loader, func(s [16]byte) bool {
		return slices.Contains(others, s)
	})
	if err != nil {
		a.warn(done, fmt.Sprintf("no boot entry was made: %v", err))
	}
	done.BootEntry, done.Removed = entry, append(done.Removed, replaced...)
}

func (a *Agent) vars() efi.Vars { return efi.Vars{Dir: filepath.Join(a.EFI, "efivars")} }

// rememberPartitions keeps the partitions of a disk before it is cleared, to find the boot entries that name
// them.
func (a *Agent) rememberPartitions(dev *disk.Device) {
	scan := disk.ScanBoot(dev, dev.Size, dev.Sector, runtime.GOARCH)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range scan.Signatures {
		if !slices.Contains(a.cleared[dev.Name], s) {
			a.cleared[dev.Name] = append(a.cleared[dev.Name], s)
		}
	}
}

// forgetEntries removes the boot entries for partitions of a disk that has been cleared.
func (a *Agent) forgetEntries(name string) ([]string, error) {
	a.mu.Lock() // also guards the firmware's variables
	defer a.mu.Unlock()
	vars := a.vars()
	if len(a.cleared[name]) == 0 || !vars.Present() {
		return nil, nil
	}
	disks, err := a.Disks()
	if err != nil {
		return nil, err
	}
	var there [][16]byte
	for _, d := range disks {
		if d.Bytes == 0 {
			continue
		}
		scan, err := a.scan(d.Name)
		if err != nil {
			a.Log.Warn("look for the partitions that boot entries name", "disk", d.Name, "err", err)
		}
		there = append(there, scan.Signatures...)
	}
	return vars.Forget(a.cleared[name], func(s [16]byte) bool { return slices.Contains(there, s) })
}

func (a *Agent) warn(done *inventory.Finished, text string) {
	a.Log.Warn(text)
	done.Warnings = append(done.Warnings, text)
}

// scan reads the boot information of another disk of the machine.
func (a *Agent) scan(name string) (disk.BootScan, error) {
	f, err := os.Open(filepath.Join(a.Dev, name))
	if err != nil {
		return disk.BootScan{}, err
	}
	defer f.Close()
	size, sector, err := blockdev.Geometry(f)
	if err != nil {
		return disk.BootScan{}, err
	}
	return disk.ScanBoot(f, size, sector, runtime.GOARCH), nil
}
