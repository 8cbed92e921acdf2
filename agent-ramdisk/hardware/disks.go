package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// notDisks are block devices that never hold a system.
var notDisks = regexp.MustCompile(`^(loop|ram|zram|dm-|md|sr|fd|nbd)|^mmcblk\d+(boot\d|rpmb)`)

// Disks lists the whole disks of the machine, even those that pxectl never writes to. Of an NVMe disk whose
// paths the kernel joins, it lists the joined one.
func (m Machine) Disks() ([]inventory.Disk, error) {
	entries, err := os.ReadDir(m.path("sys/block"))
	if err != nil {
		return nil, fmt.Errorf("disks: %w", err)
	}
	var disks []inventory.Disk
	for _, e := range entries {
		if notDisks.MatchString(e.Name()) || m.number("sys/block/"+e.Name()+"/hidden") == 1 {
			continue
		}
		disks = append(disks, m.disk(e.Name()))
	}
	slices.SortFunc(disks, func(a, b inventory.Disk) int { return strings.Compare(a.Name, b.Name) })
	return disks, nil
}

func (m Machine) disk(name string) inventory.Disk {
	dir := "sys/block/" + name + "/"
	d := inventory.Disk{
		Name: name,
		// The size attribute counts 512-byte units whatever the sector size is.
		Bytes:          uint64(m.number(dir+"size")) * 512,
		LogicalSector:  int(m.number(dir + "queue/logical_block_size")),
		PhysicalSector: int(m.number(dir + "queue/physical_block_size")),
		Rotational:     m.number(dir+"queue/rotational") == 1,
		Removable:      m.number(dir+"removable") == 1,
		ReadOnly:       m.number(dir+"ro") == 1,
		Vendor:         m.text(dir + "device/vendor"),
		Model:          m.text(dir + "device/model"),
	}
	if strings.HasPrefix(d.Vendor, "0x") {
		d.Vendor = "" // virtio's is a PCI number
	}
	place := m.place(name)
	d.ByPath, d.Transport = m.byPath(place)
	switch {
	case strings.HasPrefix(name, "vd"):
		d.Serial = m.text(dir + "serial")
		d.Rotational = false // the kernel guesses for these
	case strings.HasPrefix(name, "nvme"):
		d.Serial = m.text(dir + "device/serial")
		d.WWN = wwn(m.text(dir + "wwid"))
	default:
		d.Serial = vpd(m.path(dir + "device/vpd_pg80"))
		d.WWN = wwn(m.text(dir + "device/wwid"))
		if link, err := filepath.EvalSymlinks(m.path(dir + "device")); err == nil &&
			hctl.MatchString(filepath.Base(link)) {
			d.HCTL = filepath.Base(link)
		}
		if d.Transport == "sata" {
			d.Vendor = "" // always "ATA"
		}
	}
	return d
}

// place is the place of a disk, as a path below /sys/devices. A disk that the kernel joins from several paths
// has none. One that it joins from a single path (the drive says that it could have more) has that path's.
func (m Machine) place(name string) string {
	if ns := nvmeName.FindStringSubmatch(name); ns != nil {
		// nvme0c1n1 is a hidden path of nvme0n1.
		paths, _ := filepath.Glob(m.path("sys/block/" + ns[1] + "c*" + ns[2]))
		switch len(paths) {
		case 0:
		case 1:
			name = filepath.Base(paths[0])
		default:
			return "/" + name
		}
	}
	// Resolved within the tree of the test or of the machine: the link is relative.
	place, err := filepath.EvalSymlinks(m.path("sys/block/" + name))
	if err != nil {
		return ""
	}
	return place
}

// vpd reads the serial from VPD page 80h: four bytes of header, then text (SPC-4 section 7.8.15).
func vpd(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) < 4 {
		return ""
	}
	return strings.Trim(string(data[4:]), " \x00\n")
}

// wwn keeps worldwide names only: "t10." and "nvme." are vendor, model and serial in another form, and zeros
// are a placeholder.
func wwn(id string) string {
	switch {
	case strings.HasPrefix(id, "naa."):
		return inventory.WorldwideName("0x" + strings.TrimPrefix(id, "naa."))
	case strings.HasPrefix(id, "eui."), strings.HasPrefix(id, "uuid."):
		return inventory.WorldwideName(id)
	}
	return ""
}
