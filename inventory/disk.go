package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A DiskIdentity identifies a disk of a machine across boots, when its kernel name may have changed. Fields
// that the disk does not have are empty.
type DiskIdentity struct {
	Name   string `json:"name"` // at the time of the order; for people
	Serial string `json:"serial,omitempty"`
	WWN    string `json:"wwn,omitempty"`
	ByPath string `json:"by_path,omitempty"`
	Bytes  uint64 `json:"bytes"`
}

// Identity returns the identity of a chosen disk.
func (d Disk) Identity() DiskIdentity {
	return DiskIdentity{Name: d.Name, Serial: d.Serial, WWN: d.WWN, ByPath: d.ByPath, Bytes: d.Bytes}
}

// Is says whether d is the chosen disk. Serial or WWN decide; when neither of the two has any, the place where
// it is plugged does. The size must be the same in any case. A disk with a serial is never one that was known
// without: who makes up a disk knows places and sizes sooner than serials.
func (id DiskIdentity) Is(d Disk) bool {
	if id.Bytes != d.Bytes || id.Serial != d.Serial || WorldwideName(id.WWN) != WorldwideName(d.WWN) {
		return false
	}
	return id.Serial != "" || WorldwideName(id.WWN) != "" || id.inPlace(d)
}

// MayBe is Is for a disk of which more may be known than when it was chosen.
func (id DiskIdentity) MayBe(d Disk) bool {
	wwn := WorldwideName(id.WWN)
	switch {
	case id.Bytes != d.Bytes, id.Serial != "" && id.Serial != d.Serial,
		wwn != "" && wwn != WorldwideName(d.WWN):
		return false
	}
	return id.Serial != "" || wwn != "" || id.inPlace(d)
}

func (id DiskIdentity) inPlace(d Disk) bool {
	if id.ByPath != "" {
		return id.ByPath == d.ByPath
	}
	return id.Name == d.Name
}

// Find lists the disks that may be the chosen one. Cheap disks may all claim the same identity; then it is
// the one in the place of the chosen one.
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

// Said is the identity in the form of --disk.
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

// virtualMedia are drives that a BMC emulates (iDRAC, iLO, AMI, ATEN, OpenBMC's gadgets), by vendor and
// model. A "Virtual Disk" is not one: hypervisors and RAID controllers call their disks so.
var virtualMedia = regexp.MustCompile(`(?i)\b(virtual (cd|dvd|floppy|media|hdisk|usb)|lun \d+ media|` +
	`file-(stor|cd) gadget)|^(idrac|ilo|hp ilo|aten virtual)\b`)

// Unfit says why pxectl never writes to a disk. It returns "" when it may.
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

// special are block devices, by their kernel names, that hold a system only if an operator planned it.
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

// Special names the kind of a device that pxectl writes to only when it is named. It returns "" for an
// ordinary disk.
func (d Disk) Special() string {
	for _, s := range special {
		if s.name.MatchString(d.Name) {
			return s.what
		}
	}
	return ""
}

// Candidates are the disks that pxectl may write to without their being named. When several paths lead to one
// disk, none of them is a candidate.
func Candidates(disks []Disk) []Disk {
	return slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool {
		return d.unfitAmong(disks) != "" || d.Special() != ""
	})
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

// sameDisk says whether two entries are paths to one disk. Only a fabric has several paths: a SATA disk and
// an NVMe disk on PCI Express have one cable each, and an identity that two of them share is a maker's
// mistake. So is a WWN that disks with different serials share.
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
	return a.Serial != "" && a.Serial == b.Serial && a.Vendor == b.Vendor && a.Model == b.Model &&
		a.Bytes == b.Bytes &&
		a.Transport != "nvme" && b.Transport != "nvme" && lun(a) == lun(b)
}

// onFabric says whether several paths may lead to the disk.
func (d Disk) onFabric() bool {
	switch d.Transport {
	case "sas", "scsi", "fc":
		return true
	case "nvme":
		return !strings.HasPrefix(d.ByPath, "pci-")
	}
	return false
}

// WorldwideName returns a worldwide name, or "" for the placeholders of makers that assigned none: zeros, one
// digit repeated, or zeros with one or two other digits. A real one has the 24 bits of its maker (SPC-4
// section 7.8.6) and a number.
func WorldwideName(wwn string) string {
	digits := wwn
	for _, prefix := range []string{"0x", "naa.", "eui.", "uuid."} {
		digits = strings.TrimPrefix(digits, prefix)
	}
	digits = strings.ReplaceAll(digits, "-", "")
	if digits == "" || len(strings.ReplaceAll(digits, "0", "")) < 3 ||
		strings.Trim(strings.ToLower(digits), strings.ToLower(digits[:1])) == "" {
		return ""
	}
	return wwn
}

// ChooseDisk picks the disk for an image of the given size: the one that the hint names, or the only
// candidate. It never guesses: no disk, or two, is an error that lists the disks.
func ChooseDisk(disks []Disk, hint *DiskHint, need uint64) (Disk, error) {
	candidates := Candidates(disks)
	if hint != nil {
		candidates = slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool {
			return d.unfitAmong(disks) != "" || !hint.Matches(d) || d.Special() != "" && !hint.namesOneDisk()
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
		return Disk{}, fmt.Errorf("%d disks and no hint which one: %s", len(candidates),
			ListDisks(candidates))
	}
	if d := candidates[0]; d.Bytes < need {
		return Disk{}, fmt.Errorf("disk %s holds %d bytes, the image needs %d", d.Name, d.Bytes, need)
	}
	return candidates[0], nil
}

// Foreign names the signatures on a disk that show somebody's data: all but an empty partition table.
func (d Disk) Foreign() []string {
	var found []string
	for _, s := range d.Content {
		if s != "gpt" && s != "mbr" {
			found = append(found, s)
		}
	}
	return found
}

// ListDisks names disks for an error or a table cell, each with the reason if pxectl never writes to it.
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
