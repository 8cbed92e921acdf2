package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	// A DNS label: RFC 1123 section 2.1.
	label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// The ids of machines, deployments and erasures.
	idLike = regexp.MustCompile(`^[mde]-[0-9a-f]{8}$`)
)

// CheckHostname returns the mistake in a hostname.
func CheckHostname(name string) error { return checkLabel("hostname", name) }

// CheckName returns the mistake in a machine's name. The name is the machine's default hostname, so it must
// be a DNS label. It must not read as an id, a MAC or a UUID, which commands or people would take for one.
func CheckName(name string) error {
	if err := checkLabel("name", name); err != nil {
		return err
	}
	like := ""
	if idLike.MatchString(name) {
		like = "an id"
	} else if _, err := ParseMAC(name); err == nil {
		like = "a MAC address"
	} else if systemUUID.MatchString(name) {
		like = "a UUID"
	}
	if like == "" {
		return nil
	}
	return &Problem{
		Code:   CodeInvalid,
		Detail: fmt.Sprintf("name %q looks like %s", name, like),
		Hint:   "choose a name that cannot be mistaken for one",
	}
}

// ParseUUID returns a system's UUID from SMBIOS in its canonical form. All zeros and all ones mean that a
// board has none (DSP0134 section 7.2.1).
func ParseUUID(s string) (string, error) {
	uuid := strings.ToLower(s)
	digits := strings.ReplaceAll(uuid, "-", "")
	p := &Problem{
		Code: CodeInvalid,
		Hint: "`dmidecode -s system-uuid` shows it on the machine; without one, know it by its MAC",
	}
	switch {
	case !systemUUID.MatchString(uuid):
		p.Detail = fmt.Sprintf("UUID %.40q: want 32 hexadecimal digits as 8-4-4-4-12, "+
			"like 4c4c4544-0058-4b10-8032-b7c04f513034", s)
	case strings.Trim(digits, "0") == "" || strings.Trim(digits, "f") == "":
		p.Detail = fmt.Sprintf("UUID %q: that is said by boards that have none", s)
	default:
		return uuid, nil
	}
	return "", p
}

func checkLabel(what, name string) error {
	if label.MatchString(name) {
		return nil
	}
	return &Problem{
		Code: CodeInvalid, Detail: fmt.Sprintf("%s %q: a computer cannot be called that", what, name),
		Hint: "use lower-case letters, digits and hyphens, 63 at most, " +
			"with a letter or a digit first and last",
	}
}

// Resolve finds the machine for a person's ref: an id, else a MAC, else a name. The order matters only for
// names from older releases that read as an id or a MAC.
func Resolve[T any](
	ref string, byID func(MachineID) (T, bool), byMAC func(MAC) (T, bool), byName func(string) (T, bool),
) (T, bool) {
	if found, ok := byID(MachineID(ref)); ok {
		return found, true
	}
	if mac, err := ParseMAC(ref); err == nil {
		if found, ok := byMAC(mac); ok {
			return found, true
		}
	}
	return byName(ref)
}

// Find is Resolve in a list.
func Find(machines []Machine, ref string) (at int, ok bool) {
	first := func(is func(*Machine) bool) (int, bool) {
		for i := range machines {
			if is(&machines[i]) {
				return i, true
			}
		}
		return 0, false
	}
	return Resolve(ref,
		func(id MachineID) (int, bool) { return first(func(m *Machine) bool { return m.ID == id }) },
		func(mac MAC) (int, bool) {
			return first(func(m *Machine) bool { return slices.Contains(m.MACs, mac) })
		},
		func(name string) (int, bool) { return first(func(m *Machine) bool { return m.Name == name }) })
}
