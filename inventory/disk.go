package inventory

import (
	"fmt"
	"strings"
)

// A DiskHint is the operator's choice of a disk: every field that is set must match.
type DiskHint struct {
	Name   string `json:"name,omitempty"`
	Serial string `json:"serial,omitempty"`
	WWN    string `json:"wwn,omitempty"`
	ByPath string `json:"by_path,omitempty"`
	Model  string `json:"model,omitempty"`
}

// ParseDiskHint reads "serial=S1", "model=QEMU,name=sda" or a bare device name.
func ParseDiskHint(s string) (DiskHint, error) {
	var h DiskHint
	for part := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			key, value = "name", strings.TrimPrefix(key, "/dev/")
		}
		if value == "" {
			return DiskHint{}, fmt.Errorf("disk hint %q: %s has no value", s, key)
		}
		switch key {
		case "name":
			h.Name = strings.TrimPrefix(value, "/dev/")
		case "serial":
			h.Serial = value
		case "wwn":
			h.WWN = value
		case "by_path":
			h.ByPath = value
		case "model":
			h.Model = value
		default:
			return DiskHint{}, fmt.Errorf("disk hint %q: unknown key %q (have: name, serial, wwn, by_path, model)", s, key)
		}
	}
	return h, nil
}

func (h DiskHint) String() string {
	var parts []string
	for _, f := range []struct{ key, value string }{
		{"name", h.Name}, {"serial", h.Serial}, {"wwn", h.WWN}, {"by_path", h.ByPath}, {"model", h.Model},
	} {
		if f.value != "" {
			parts = append(parts, f.key+"="+f.value)
		}
	}
	return strings.Join(parts, ",")
}

// Matches says whether every field that the hint sets is the disk's.
func (h DiskHint) Matches(d Disk) bool {
	return (h.Name == "" || h.Name == d.Name) &&
		(h.Serial == "" || h.Serial == d.Serial) &&
		(h.WWN == "" || strings.EqualFold(h.WWN, d.WWN)) &&
		(h.ByPath == "" || h.ByPath == d.ByPath) &&
		(h.Model == "" || strings.EqualFold(h.Model, d.Model))
}

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

// ChooseDisk picks the disk that an image of the given size goes to: the one that the hint names, or the only
// candidate there is. It never guesses: no disk, or two, is an error that lists what is there.
func ChooseDisk(disks []Disk, hint *DiskHint, need uint64) (Disk, error) {
	var candidates []Disk
	for _, d := range disks {
		if d.Bytes == 0 || d.ReadOnly || d.Removable || d.Transport == "usb" {
			continue
		}
		if hint == nil || hint.Matches(d) {
			candidates = append(candidates, d)
		}
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

// ListDisks names disks for an error or a table cell.
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
	}
	return strings.Join(parts, "; ")
}
