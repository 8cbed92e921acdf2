package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// DefaultDir is the default directory of a rack.
const DefaultDir = "/var/tmp/pxectl-lab"

// The site's DHCP server.
const (
	Dnsmasq = "dnsmasq"
	Kea     = "kea"
	NoDHCP  = "none" // the appliance is the DHCP server
)

const (
	maxMachines = 49 // BMCs are 10.77.0.51 to .99
	maxDisks    = 2
)

// A Config is a rack. The zero value is a rack of DefaultMachines with an appliance.
type Config struct {
	Dir      string    `yaml:"dir" json:"dir"`
	Machines []Machine `yaml:"machines" json:"machines"`
	// Accel is "auto" (KVM if it works here, else TCG), "kvm" or "tcg".
	Accel string `yaml:"accel" json:"accel"`
	// DHCP is the site's DHCP server: Dnsmasq unless set.
	DHCP string `yaml:"dhcp" json:"dhcp"`
	// Freeze keeps a copy of a machine's first disk, disk0.written, made when it is
	// powered on to boot from disk and before it starts.
	Freeze bool `yaml:"freeze" json:"freeze"`
	// NoAppliance starts no appliance.
	NoAppliance bool `yaml:"no_appliance" json:"no_appliance"`
	// ApplianceConfig is the appliance's configuration file. When it is empty, one for this rack is written.
	ApplianceConfig string `yaml:"appliance_config" json:"appliance_config"`

	// Binary is the pxectl that supervises the rack and serves as appliance. When it is empty, it is the
	// running program.
	Binary string `yaml:"-" json:"binary"`
	// Fresh begins with empty disks, new firmware variables and an empty appliance, instead of those of an
	// earlier rack in Dir.
	Fresh bool `yaml:"-" json:"-"`
	// Attached ends the rack when the process that called Up ends.
	Attached bool `yaml:"-" json:"attached"`
}

// A Machine is one machine of the rack.
type Machine struct {
	Name     string `yaml:"name" json:"name"`
	Firmware string `yaml:"firmware" json:"firmware"`
	NIC      string `yaml:"nic" json:"nic"` // virtio, e1000
	Disks    []Disk `yaml:"disks" json:"disks"`
	Memory   int    `yaml:"memory" json:"memory"` // MiB
	CPUs     int    `yaml:"cpus" json:"cpus"`
}

// A Disk is one disk of a machine: a sparse raw file.
type Disk struct {
	Bus    string `yaml:"bus" json:"bus"` // virtio, sata, nvme
	Size   Size   `yaml:"size" json:"size"`
	Serial string `yaml:"serial" json:"serial"`
	Sector int    `yaml:"sector" json:"sector"` // logical sector size
}

// A Size is a number of bytes, written as 4GiB, 512MiB or plain bytes.
type Size uint64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMGTiB")
	shift, ok := map[string]uint{
		"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30,
		"TiB": 40,
	}[string(text[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || n > 1<<46>>shift {
		return fmt.Errorf("size %q: want bytes or a number with KiB, MiB, GiB, TiB, at most 64TiB", text)
	}
	*s = Size(n << shift)
	return nil
}

// MarshalText writes it as bytes.
func (s Size) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(s), 10), nil }

// DefaultMachines is a rack of one machine per firmware.
const DefaultMachines = "m1:bios,m2:uefi"

// fourK is the suffix of a disk's bus for sectors of 4096 bytes.
const fourK = "-4k"

// ParseMachines reads "m1:bios,m2:uefi:nvme-4k,m3:bios:sata+sata:e1000": name, firmware, up to two disks
// joined by "+", NIC. A disk is its bus, with "-4k" for sectors of 4096 bytes instead of 512. The default of
// disk and NIC is virtio; the NIC of UEFIROM is e1000.
func ParseMachines(s string) ([]Machine, error) {
	var machines []Machine
	for entry := range strings.SplitSeq(s, ",") {
		parts := strings.Split(entry, ":")
		if len(parts) < 2 || len(parts) > 4 {
			return nil, fmt.Errorf("machine %q: want NAME:FIRMWARE[:DISK[+DISK]][:NIC], like m1:bios or m2:uefi:nvme-4k:virtio",
				entry)
		}
		m := Machine{Name: parts[0], Firmware: parts[1]}
		if len(parts) > 2 && parts[2] != "" {
			for disk := range strings.SplitSeq(parts[2], "+") {
				d := Disk{Bus: disk}
				if bus, ok := strings.CutSuffix(disk, fourK); ok {
					d = Disk{Bus: bus, Sector: 4096}
				}
				m.Disks = append(m.Disks, d)
			}
		}
		if len(parts) > 3 {
			m.NIC = parts[3]
		}
		machines = append(machines, m)
	}
	return machines, checkMachines(machines)
}

// LoadConfig reads a rack from a YAML file. Unknown keys are refused.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	var c Config
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.fill(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// fill sets the defaults and reports all mistakes at once.
func (c *Config) fill() error {
	if c.Dir == "" {
		c.Dir = DefaultDir
	}
	var errs []error
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		errs = append(errs, err)
	}
	// sun_path is 108 bytes with its final zero: unix(7).
	if longest := len(c.Dir) + len("/pxectl.sock"); longest > 107 {
		errs = append(errs,
			fmt.Errorf("dir %s: too long for a Unix socket in it by %d bytes", c.Dir, longest-107))
	}
	if c.ApplianceConfig != "" {
		if c.ApplianceConfig, err = filepath.Abs(c.ApplianceConfig); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Accel == "" {
		c.Accel = "auto"
	}
	errs = append(errs, oneOf("accel", c.Accel, "auto", "kvm", "tcg"))
	c.DHCP = or(c.DHCP, Dnsmasq)
	errs = append(errs, oneOf("dhcp", c.DHCP, Dnsmasq, Kea, NoDHCP))
	if len(c.Machines) == 0 {
		if c.Machines, err = ParseMachines(DefaultMachines); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, checkMachines(c.Machines))...)
}

var machineName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// checkMachines sets each machine's defaults and reports all mistakes.
func checkMachines(machines []Machine) error {
	var errs []error
	if len(machines) > maxMachines {
		errs = append(errs, fmt.Errorf("machines: %d, a rack holds at most %d", len(machines), maxMachines))
	}
	seen := map[string]bool{}
	for i := range machines {
		m := &machines[i]
		if !machineName.MatchString(m.Name) {
			errs = append(errs,
				fmt.Errorf("machine %q: a name is lower-case letters, digits and hyphens, at most 31",
					m.Name))
		}
		if seen[m.Name] {
			errs = append(errs, fmt.Errorf("machine %q: named twice", m.Name))
		}
		seen[m.Name] = true
		if err := m.fill(i + 1); err != nil {
			errs = append(errs, fmt.Errorf("machine %q: %w", m.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Machine) fill(number int) error {
	if m.Firmware == UEFIROM { // EDK2 has a driver for virtio and would not need the ROM
		m.NIC = or(m.NIC, "e1000")
	}
	m.NIC = or(m.NIC, "virtio")
	m.Memory = or(m.Memory, 512)
	m.CPUs = or(m.CPUs, 1)
	if len(m.Disks) == 0 {
		m.Disks = []Disk{{}}
	}
	errs := []error{
		oneOf("nic", m.NIC, "virtio", "e1000"),
		m.checkFirmware(),
	}
	if m.Memory < 128 || m.Memory > 65536 {
		errs = append(errs, fmt.Errorf("memory %d: want 128 to 65536 MiB", m.Memory))
	}
	if m.CPUs < 1 || m.CPUs > 64 {
		errs = append(errs, fmt.Errorf("cpus %d: want 1 to 64", m.CPUs))
	}
	if len(m.Disks) > maxDisks {
		errs = append(errs, fmt.Errorf("%d disks: want at most %d", len(m.Disks), maxDisks))
	}
	for i := range m.Disks {
		d := &m.Disks[i]
		d.Bus = or(d.Bus, "virtio")
		d.Size = or(d.Size, 4<<30)
		d.Sector = or(d.Sector, 512)
		d.Serial = or(d.Serial, fmt.Sprintf("LAB%02dD%d", number, i))
		errs = append(errs, oneOf("disk bus", d.Bus, "virtio", "sata", "nvme"))
		switch {
		case d.Sector != 512 && d.Sector != 4096:
			errs = append(errs, fmt.Errorf("disk sector %d: want 512 or 4096", d.Sector))
		case d.Sector == 4096 && d.Bus == "sata":
			errs = append(errs,
				errors.New("disk sector 4096: QEMU's sata disks have 512; use nvme or virtio"))
		case d.Size < 1<<20 || uint64(d.Size)%uint64(d.Sector) != 0:
			errs = append(errs,
				fmt.Errorf("disk size %d: want at least 1MiB and whole sectors of %d", d.Size, d.Sector))
		}
		// virtio-blk, ATA and NVMe all have room for 20 bytes.
		if len(d.Serial) > 20 ||
			strings.ContainsFunc(d.Serial, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
			errs = append(errs,
				fmt.Errorf("disk serial %q: want at most 20 printable characters without a comma", d.Serial))
		}
	}
	return errors.Join(errs...)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func oneOf(key, value string, have ...string) error {
	for _, h := range have {
		if h == value {
			return nil
		}
	}
	return fmt.Errorf("%s %q: have %s", key, value, strings.Join(have, ", "))
}

// Addresses and identities of a machine follow from its place in the rack, counted from 1.

func machineMAC(n int) string         { return fmt.Sprintf("52:54:00:77:00:%02x", n) }
func bmcMAC(n int) [6]byte            { return [6]byte{0x52, 0x54, 0x00, 0xbb, 0x00, byte(n)} }
func bmcAddress(n int) netip.Addr     { return netip.AddrFrom4([4]byte{10, 77, 0, byte(50 + n)}) }
func tapName(n int) string            { return fmt.Sprintf("tap%d", n) }
func machineUUID(n int) string        { return fmt.Sprintf("7078656c-0077-4000-8000-5254007700%02x", n) }
func machineDir(dir, m string) string { return filepath.Join(dir, "machines", m) }
