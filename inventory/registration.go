package inventory

import (
	"fmt"
	"strings"
)

// Parsed returns the registration as the appliance keeps it: a MAC in its canonical form, a boot id that the
// kernel could have made, a UUID or none, and a version that fits a line. Any other value is an error, so
// that the appliance records nothing of it.
func (r Registration) Parsed() (Registration, error) {
	mac, err := ParseMAC(string(r.MAC))
	if err != nil {
		return r, err
	}
	r.MAC = mac
	if r.BootID = strings.ToLower(r.BootID); !systemUUID.MatchString(r.BootID) {
		return r, fmt.Errorf("boot_id %.40q: want a UUID, as in /proc/sys/kernel/random/boot_id", r.BootID)
	}
	if r.UUID = strings.ToLower(r.UUID); r.UUID != "" && !systemUUID.MatchString(r.UUID) {
		r.UUID = ""
	}
	r.Version = Text(r.Version, MaxWord)
	r.Uptime = max(0, r.Uptime)
	return r, nil
}
