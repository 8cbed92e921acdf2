package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A DiskIdentity tells one disk of a machine from the others across boots, when its kernel name may
// have changed. Fields that the disk does not have are empty.
type DiskIdentity struct {
	Name   string `json:"name"` // when the order was made; for people
	Serial string `json:"serial,omitempty"`
	WWN    string `json:"wwn,omitempty"`
	ByPath string `json:"by_path,omitempty"`
	Bytes  uint64 `json:"bytes"`
}

// Identity is what to remember of a chosen disk.
func (d Disk) Identity() DiskIdentity {
	return DiskIdentity{Name: d.Name, Serial: d.Serial, WWN: d.WWN, ByPath: d.ByPath, Bytes: d.Bytes}
}

// Is says whether d is the disk that was chosen. Serial or WWN decide; a disk that has neither is
// known by where it is plugged. The size must be the same in any case.
func (id DiskIdentity) Is(d Disk) bool {
	switch {
	case id.Bytes != d.Bytes:
		return false
	case WorldwideName(id.WWN) != "" || id.Serial != "":
		return WorldwideName(id.WWN) == WorldwideName(d.WWN) && id.Serial == d.Serial
	case id.ByPath != "":
		return id.ByPath == d.ByPath
	default:
		return id.Name == d.Name
	}
}

// Find lists the disks that may be the chosen one. Of several that say the same of themselves, as cheap ones
// do, it is the one that is plugged in where the chosen one was.
func (id DiskIdentity) Find(disks []Disk) []Disk {
	found := slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return !id.Is(d) })
	if len(found) < 2 || id.ByPath == "" {
		return found
	}
	if i := slices.IndexFunc(found, func(d Disk) bool { return d.ByPath == id.ByPath }); i >= 0 {
		return found[i : i+1]
	}
	return found
}

// Said is how an operator names the disk with --disk.
func (id DiskIdentity) Said() string {
	switch {
	case id.Serial != "":
		return "serial=" + id.Serial
	case id.WWN != "":
		return "wwn=" + id.WWN
	case id.ByPath != "":
		return "by_path=" + id.ByPath
	default:
		return "name=" + id.Name
	}
}

// virtualMedia are drives that a BMC pretends (iDRAC, iLO, AMI, ATEN, OpenBMC's gadgets), by vendor and
// model. A "Virtual Disk" is none: hypervisors and RAID controllers call their disks so.
var virtualMedia = regexp.MustCompile(`(?i)\b(virtual (cd|dvd|floppy|media|hdisk|usb)|lun \d+ media|file-(stor|cd) gadget)|^(idrac|ilo|hp ilo|aten virtual)\b`)

// Unfit says why nothing is ever written to a disk, or "" when it may be.
func (d Disk) Unfit() string {
	switch {
	case d.Bytes == 0:
		return "empty"
	case d.ReadOnly:
		return "read-only"
	case virtualMedia.MatchString(strings.TrimSpace(d.Vendor + " " + d.Model)):
		return "virtual media"
	case d.Transport == "usb":
		return "on USB"
	case d.Removable:
		return "removable"
	}
	return ""
}

// special are block devices that hold a system only where somebody planned it, by the kernel's names for
// them.
var special = []struct {
	name *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`^mtdblock\d`), "flash memory (MTD)"},
	{regexp.MustCompile(`^pmem\d`), "persistent memory"},
	{regexp.MustCompile(`^zd\d`), "a ZFS volume"},
	{regexp.MustCompile(`^rbd\d`), "a Ceph image (RBD)"},
	{regexp.MustCompile(`^bcache\d`), "a bcache device"},
	{regexp.MustCompile(`^drbd\d`), "a DRBD device"},
	{regexp.MustCompile(`^(ublkb|nullb)\d`), "a device of a program"},
}

// Special says what kind of device it is that is written to only when it is named, or "" for an ordinary
// disk.
func (d Disk) Special() string {
	for _, s := range special {
		if s.name.MatchString(d.Name) {
			return s.what
		}
	}
	return ""
}

// Candidates are the disks that may be written to without being named. Several paths to one disk are none of
// them the disk alone.
func Candidates(disks []Disk) []Disk {
	return slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return d.unfitAmong(disks) != "" || d.Special() != "" })
}

func (d Disk) unfitAmong(disks []Disk) string {
	if why := d.Unfit(); why != "" {
		return why
	}
	for _, o := range disks {
		if o.Name != d.Name && sameDisk(d, o) {
			return "a path of several to one disk"
		}
	}
	return ""
}

// sameDisk says whether two entries are paths to one disk. Only a fabric has such: a SATA disk and an NVMe
// disk on PCI Express have a cable each, and what two of them share is the maker's carelessness. So is a WWN
// that disks of different serials share.
func sameDisk(a, b Disk) bool {
	switch {
	case !a.onFabric() || !b.onFabric():
		return false
	case a.Serial != "" && b.Serial != "" && a.Serial != b.Serial:
		return false
	case WorldwideName(a.WWN) != "" || WorldwideName(b.WWN) != "":
		return WorldwideName(a.WWN) == WorldwideName(b.WWN)
	}
	lun := func(d Disk) string { return d.HCTL[strings.LastIndexByte(d.HCTL, ':')+1:] }
	return a.Serial != "" && a.Serial == b.Serial && a.Vendor == b.Vendor && a.Model == b.Model && a.Bytes == b.Bytes &&
		a.Transport != "nvme" && b.Transport != "nvme" && lun(a) == lun(b)
}

// onFabric says that several paths may lead to the disk.
func (d Disk) onFabric() bool {
	switch d.Transport {
	case "sas", "scsi", "fc":
		return true
	case "nvme":
		return !strings.HasPrefix(d.ByPath, "pci-")
	}
	return false
}

// WorldwideName is a worldwide name, or "" for what makers put where they assigned none: zeros, one digit all
// over, or zeros but for a digit or two. A real one has the 24 bits of its maker (SPC-4 section 7.8.6) and a
// number.
func WorldwideName(wwn string) string {
	digits := wwn
	for _, prefix := range []string{"0x", "naa.", "eui.", "uuid."} {
		digits = strings.TrimPrefix(digits, prefix)
	}
	digits = strings.ReplaceAll(digits, "-", "")
	if digits == "" || len(strings.ReplaceAll(digits, "0", "")) < 3 || strings.Trim(strings.ToLower(digits), strings.ToLower(digits[:1])) == "" {
		return ""
	}
	return wwn
}

// ChooseDisk picks the disk that an image of the given size goes to: the one that the hint names, or the only
// candidate there is. It never guesses: no disk, or two, is an error that lists what is there.
func ChooseDisk(disks []Disk, hint *DiskHint, need uint64) (Disk, error) {
	candidates := Candidates(disks)
	if hint != nil {
		candidates = slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool {
			return d.unfitAmong(disks) != "" || !hint.Matches(d) || d.Special() != "" && !hint.tellsApart()
		})
	}
	switch {
	case len(candidates) == 0 && hint != nil:
		return Disk{}, fmt.Errorf("no disk matches %s (have: %s)", hint, ListDisks(disks))
	case len(candidates) == 0:
		return Disk{}, fmt.Errorf("no disk to write to (have: %s)", ListDisks(disks))
	case len(candidates) > 1 && hint != nil:
		return Disk{}, fmt.Errorf("%d disks match %s: %s", len(candidates), hint, ListDisks(candidates))
	case len(candidates) > 1:
		return Disk{}, fmt.Errorf("%d disks and no hint which one: %s", len(candidates), ListDisks(candidates))
	}
	if d := candidates[0]; d.Bytes < need {
		return Disk{}, fmt.Errorf("disk %s holds %d bytes, the image needs %d", d.Name, d.Bytes, need)
	}
	return candidates[0], nil
}

// Foreign names the signatures on a disk that tell of somebody's data: whatever is more than an empty
// partition table.
func (d Disk) Foreign() []string {
	var found []string
	for _, s := range d.Content {
		if s != "gpt" && s != "mbr" {
			found = append(found, s)
		}
	}
	return found
}

// ListDisks names disks for an error or a table cell, with what makes one unfit to be written to.
func ListDisks(disks []Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	parts := make([]string, len(disks))
	for i, d := range disks {
		parts[i] = fmt.Sprintf("%s %s %.1f GB", d.Name, d.Transport, float64(d.Bytes)/1e9)
		if d.Serial != "" {
			parts[i] += " serial=" + d.Serial
		}
		if why := d.unfitAmong(disks); why != "" {
			parts[i] += " (" + why + ")"
		} else if what := d.Special(); what != "" {
			parts[i] += " (" + what + ": name it to write to it)"
		}
	}
	return strings.Join(parts, "; ")
}
