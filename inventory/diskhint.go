package inventory

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A DiskHint is the operator's choice of a disk: every field that is set must match. Keys and operators are
// those of Ironic's root device hints, so that operators can copy theirs.
//
// A field is a value, or an operator, a space and a value. Text is compared without regard to case:
//
//	S1, s== S1, == S1          is S1
//	s!= S1, != S1              is not S1
//	<in> qemu                  contains qemu
//	<all-in> qemu nvme         contains each of these words
//	<or> S1 <or> S2            is one of these
//
// Size is compared with ==, !=, >=, <=, > and <; it has a unit (MB, GB, TB, MiB, GiB, TiB), and is in GiB
// without one, as in Ironic. "== 480GB" is any disk that is 480 when rounded to as many digits. Rotational is
// true or false. Ironic's "=", which means >= there, is refused.
//
// A disk with an extended WWN (32 digits) also matches the first 16 of them, which udev and Ironic call
// "wwn"; its whole WWN is "wwn_with_extension", the rest "wwn_vendor_extension". "by_path" takes every name
// that udev gives a disk.
type DiskHint struct {
	Name               string `json:"name,omitempty"`
	Serial             string `json:"serial,omitempty"`
	WWN                string `json:"wwn,omitempty"`
	WWNWithExtension   string `json:"wwn_with_extension,omitempty"`
	WWNVendorExtension string `json:"wwn_vendor_extension,omitempty"`
	ByPath             string `json:"by_path,omitempty"`
	Model              string `json:"model,omitempty"`
	Vendor             string `json:"vendor,omitempty"`
	Size               string `json:"size,omitempty"`
	HCTL               string `json:"hctl,omitempty"`
	Rotational         string `json:"rotational,omitempty"`
	Transport          string `json:"transport,omitempty"`
}

// A hintField is one key of a hint, with the disk's value to compare it with.
type hintField struct {
	key   string
	hint  *string
	match func(want string, d Disk) (bool, error)
}

func (h *DiskHint) fields() []hintField {
	same := func(s string) string { return s }
	text := func(tidy func(string) string, have func(Disk) string) func(string, Disk) (bool, error) {
		return func(want string, d Disk) (bool, error) { return matchText(want, have(d), tidy) }
	}
	anyOf := func(tidy func(string) string, have func(Disk) []string) func(string, Disk) (bool, error) {
		return func(want string, d Disk) (bool, error) { return matchAny(want, have(d), tidy) }
	}
	digits := cutPrefix("0x")
	return []hintField{
		{"name", &h.Name, text(cutPrefix("/dev/"), func(d Disk) string { return d.Name })},
		{"serial", &h.Serial, text(same, func(d Disk) string { return d.Serial })},
		{"wwn", &h.WWN, anyOf(digits, func(d Disk) []string {
			name, _ := d.extension()
			return []string{digits(d.WWN), name}
		})},
		{
			"wwn_with_extension", &h.WWNWithExtension,
			text(digits, func(d Disk) string { return digits(d.WWN) }),
		},
		{"wwn_vendor_extension", &h.WWNVendorExtension, text(digits, func(d Disk) string {
			_, extension := d.extension()
			return extension
		})},
		{"by_path", &h.ByPath, anyOf(cutPrefix("/dev/disk/by-path/"), Disk.paths)},
		{"model", &h.Model, text(same, func(d Disk) string { return d.Model })},
		{"vendor", &h.Vendor, text(same, func(d Disk) string { return d.Vendor })},
		{"size", &h.Size, func(want string, d Disk) (bool, error) { return matchSize(want, d.Bytes) }},
		{"hctl", &h.HCTL, text(same, func(d Disk) string { return d.HCTL })},
		{
			"rotational", &h.Rotational,
			func(want string, d Disk) (bool, error) { return matchBool(want, d.Rotational) },
		},
		{"transport", &h.Transport, text(same, func(d Disk) string { return d.Transport })},
	}
}

func cutPrefix(prefix string) func(string) string {
	return func(s string) string { return strings.TrimPrefix(s, prefix) }
}

// ParseDiskHint reads "serial=S1", "size>=400GB,rotational=false", "model=<in> samsung" or a bare device
// name.
func ParseDiskHint(s string) (DiskHint, error) {
	var h DiskHint
	fields := h.fields()
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		end := strings.IndexFunc(part, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' })
		key, value := "name", part
		if end > 0 && strings.ContainsRune("=<>! ", rune(part[end])) {
			key, value = part[:end], strings.TrimSpace(part[end:])
			// "size==1TB" has an operator, "size=1TB" and "size=>=1TB" have none.
			if !strings.HasPrefix(value, "==") || strings.HasPrefix(value, "===") {
				value = strings.TrimSpace(strings.TrimPrefix(value, "="))
			}
		}
		i := slices.IndexFunc(fields, func(f hintField) bool { return f.key == key })
		switch {
		case i < 0:
			return DiskHint{}, fmt.Errorf("disk hint %q: unknown key %q (have: %s)", s, key, hintKeys(fields))
		case value == "":
			return DiskHint{}, fmt.Errorf("disk hint %q: %s has no value", s, key)
		case *fields[i].hint != "":
			return DiskHint{}, fmt.Errorf("disk hint %q: %s is given twice", s, key)
		}
		if key == "name" {
			value = strings.TrimPrefix(value, "/dev/")
		}
		*fields[i].hint = value
	}
	if err := h.Check(); err != nil {
		return DiskHint{}, err
	}
	return h, nil
}

func hintKeys(fields []hintField) string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return strings.Join(keys, ", ")
}

// Check returns the mistake in a hint, whatever the disks are.
func (h DiskHint) Check() error {
	for _, f := range h.fields() {
		if *f.hint == "" {
			continue
		}
		if _, err := f.match(*f.hint, Disk{}); err != nil {
			return fmt.Errorf("disk hint: %s %q: %w", f.key, *f.hint, err)
		}
	}
	return nil
}

func (h DiskHint) String() string {
	var parts []string
	for _, f := range h.fields() {
		if *f.hint != "" {
			parts = append(parts, f.key+"="+*f.hint)
		}
	}
	return strings.Join(parts, ",")
}

// Matches says whether the disk matches every field of the hint.
func (h DiskHint) Matches(d Disk) bool {
	for _, f := range h.fields() {
		if *f.hint == "" {
			continue
		}
		if ok, err := f.match(*f.hint, d); err != nil || !ok {
			return false
		}
	}
	return true
}

// Names says whether the hint names this disk by its own identity or, when it has none, by its place.
func (h DiskHint) Names(d Disk) bool {
	if d.Serial == "" && d.WWN == "" {
		return (h.ByPath != "" || h.Name != "") && h.Matches(d)
	}
	return (h.Serial != "" || h.WWN != "" || h.WWNWithExtension != "") && h.Matches(d)
}

// namesOneDisk says whether the hint is for one disk and not for a kind of disks.
func (h DiskHint) namesOneDisk() bool {
	return h.Name != "" || h.Serial != "" || h.WWN != "" || h.WWNWithExtension != "" || h.ByPath != ""
}

// extension splits a WWN of 32 digits (NAA 6, SPC-4 section 7.8.6.5.4) as udev does: into the name and the
// vendor's extension.
func (d Disk) extension() (name, extension string) {
	digits := strings.TrimPrefix(d.WWN, "0x")
	if len(digits) != 32 || !strings.HasPrefix(d.WWN, "0x") {
		return digits, ""
	}
	return digits[:16], digits[16:]
}

// ataTarget ends udev's newer names of ATA disks: the drive on the port, or behind a port multiplier.
var ataTarget = regexp.MustCompile(`(-ata-\d+)\.\d+(\.0)?$`)

// paths are all names that udev gives the place of a disk: the present one, and the older ones that it keeps
// for compatibility.
func (d Disk) paths() []string {
	paths := []string{d.ByPath}
	switch {
	case ataTarget.MatchString(d.ByPath):
		paths = append(paths, ataTarget.ReplaceAllString(d.ByPath, "$1"))
	case d.Transport == "virtio":
		paths = append(paths, "virtio-"+d.ByPath)
	}
	return paths
}

// operators, each before its own prefixes
var operators = []string{"<all-in>", "<in>", "<or>", "s==", "s!=", "==", "!=", ">=", "<=", ">", "<", "="}

func cutOperator(s string) (op, value string) {
	for _, op := range operators {
		if rest, ok := strings.CutPrefix(s, op); ok {
			return op, strings.TrimSpace(rest)
		}
	}
	return "", s
}

// matchAny matches one of several names of the same thing. A negated operator matches only if none of the
// names is equal.
func matchAny(want string, have []string, tidy func(string) string) (bool, error) {
	op, _ := cutOperator(want)
	not := strings.HasSuffix(op, "!=")
	for _, name := range have {
		ok, err := matchText(want, name, tidy)
		if err != nil {
			return false, err
		}
		if ok != not {
			return ok, nil
		}
	}
	return not, nil
}

func matchText(want, have string, tidy func(string) string) (bool, error) {
	op, value := cutOperator(want)
	if value == "" {
		return false, errors.New("there is nothing after the operator")
	}
	lower := strings.ToLower(have)
	within := func(w string) bool { return strings.Contains(lower, strings.ToLower(tidy(w))) }
	switch op {
	case "", "==", "s==":
		return strings.EqualFold(tidy(value), have), nil
	case "!=", "s!=":
		return !strings.EqualFold(tidy(value), have), nil
	case "<in>":
		return within(value), nil
	case "<all-in>":
		for w := range strings.FieldsSeq(value) {
			if !within(w) {
				return false, nil
			}
		}
		return true, nil
	case "<or>":
		for w := range strings.SplitSeq(value, "<or>") {
			if strings.EqualFold(tidy(strings.TrimSpace(w)), have) {
				return true, nil
			}
		}
		return false, nil
	}
	return false, fmt.Errorf("operator %s is not for text (have: s==, s!=, <in>, <all-in>, <or>)", op)
}

// units of sizes, each before its own suffixes
var units = []struct {
	name  string
	bytes float64
}{{"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}

func matchSize(want string, have uint64) (bool, error) {
	op, value := cutOperator(want)
	unit := float64(1 << 30)
	for _, u := range units {
		if n, ok := strings.CutSuffix(value, u.name); ok {
			value, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(value, 64)
	// Refuse the other forms of ParseFloat: inf, nan, 0x1p4, 1_000.
	if err != nil || strings.Trim(value, "0123456789.") != "" {
		return false, errors.New(
			"want a number with a unit (MB, GB, TB, MiB, GiB, TiB), after ==, !=, >=, <=, > or <")
	}
	_, fraction, _ := strings.Cut(value, ".")
	is := strconv.FormatFloat(float64(have)/unit, 'f', len(fraction), 64) == strconv.FormatFloat(n, 'f',
		len(fraction), 64)
	switch op {
	case "", "==":
		return is, nil
	case "!=":
		return !is, nil
	case ">=":
		return float64(have) >= n*unit, nil
	case "<=":
		return float64(have) <= n*unit, nil
	case ">":
		return float64(have) > n*unit, nil
	case "<":
		return float64(have) < n*unit, nil
	}
	return false, fmt.Errorf("operator %s is not for sizes (have: ==, !=, >=, <=, >, <)", op)
}

func matchBool(want string, have bool) (bool, error) {
	switch strings.ToLower(want) {
	case "true", "yes", "1":
		return have, nil
	case "false", "no", "0":
		return !have, nil
	}
	return false, errors.New("want true or false")
}
