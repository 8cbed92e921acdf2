package deploy

import (
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/pci"

	"github.com/pxectl/pxectl/inventory"
)

// withNames returns the report with the names of its PCI functions, from the list of pci-ids.ucw.cz in
// u-root. The appliance looks them up: the ramdisk has no room for the list, and a name that an agent gives
// is only a claim. When the report would be longer than limit bytes, names are left out; those of functions
// without a driver, which `why` quotes, are left out last.
func withNames(r inventory.Report, limit int) inventory.Report {
	functions := r.PCI
	for _, named := range []func(inventory.PCIDevice) bool{
		func(inventory.PCIDevice) bool { return true },
		// Class 06 is bridges.
		func(p inventory.PCIDevice) bool { return p.Driver == "" && !strings.HasPrefix(p.Class, "06") },
		func(inventory.PCIDevice) bool { return false },
	} {
		r.PCI = make([]inventory.PCIDevice, len(functions))
		for i, p := range functions {
			if p.Name = ""; named(p) {
				p.Name = pciName(p.Vendor, p.Device)
			}
			r.PCI[i] = p
		}
		if r.Size() <= limit {
			break
		}
	}
	return r
}

// pciName is what a device is called: vendor and device, the vendor alone of a device that is not in the
// list, or "".
func pciName(vendor, device string) string {
	v, err := strconv.ParseUint(vendor, 16, 16)
	if err != nil {
		return ""
	}
	d, err := strconv.ParseUint(device, 16, 16)
	if err != nil {
		return ""
	}
	// Lookup returns the number of what it does not find. The number is shown beside the name already.
	vendorName, deviceName := pci.Lookup(pci.IDs, uint16(v), uint16(d))
	if vendorName == hex4(v) {
		return ""
	}
	if deviceName == hex4(d) {
		deviceName = ""
	}
	return inventory.Text(strings.TrimSpace(vendorName+" "+deviceName), inventory.MaxWord)
}

func hex4(n uint64) string { return strconv.FormatUint(1<<16|n, 16)[1:] }
