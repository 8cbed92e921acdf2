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
	case id.WWN != "" || id.Serial != "":
		return id.WWN == d.WWN && id.Serial == d.Serial
	case id.ByPath != "":
		return id.ByPath == d.ByPath
	default:
		return id.Name == d.Name
	}
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

// virtualMedia are drives that a BMC pretends (iDRAC, iLO, AMI, ATEN, OpenBMC's gadgets), by vendor and model. A
// "Virtual Disk" is none: hypervisors and RAID controllers call their disks so.
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

// Candidates are the disks that may be written to. Several paths to one disk are none of them the disk alone.
func Candidates(disks []Disk) []Disk {
	return slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return d.unfitAmong(disks) != "" })
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

// sameDisk says whether two entries are paths to one disk: by WWN, or on a bus where there can be such by all else that the disk says
// of itself and its LUN. Where each disk has its own cable, a serial that two share is the maker's carelessness.
func sameDisk(a, b Disk) bool {
	if a.WWN != "" || b.WWN != "" {
		return a.WWN == b.WWN
	}
	shared := func(d Disk) bool { return d.Transport == "sas" || d.Transport == "scsi" }
	lun := func(d Disk) string { return d.HCTL[strings.LastIndexByte(d.HCTL, ':')+1:] }
	return a.Serial != "" && a.Serial == b.Serial && a.Vendor == b.Vendor && a.Model == b.Model && a.Bytes == b.Bytes &&
		shared(a) && shared(b) && lun(a) == lun(b)
}

// ChooseDisk picks the disk that an image of the given size goes to: the one that the hint names, or the only
// candidate there is. It never guesses: no disk, or two, is an error that lists what is there.
func ChooseDisk(disks []Disk, hint *DiskHint, need uint64) (Disk, error) {
	candidates := Candidates(disks)
	if hint != nil {
		candidates = slices.DeleteFunc(candidates, func(d Disk) bool { return !hint.Matches(d) })
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

// Foreign names the signatures on a disk that tell of somebody's data: whatever is more than an empty partition table.
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
		}
	}
	return strings.Join(parts, "; ")
}
