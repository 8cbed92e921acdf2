package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/smbios"

	"github.com/pxectl/pxectl/inventory"
)

// A Machine is the source of a report.
type Machine struct {
	Root    string // "/" on a machine, a copied tree in tests
	BootMAC inventory.MAC
	Version string // of the agent
	// Content names the signatures on a disk. Optional.
	Content func(name string) ([]string, error)
	// BMC asks the BMC in-band. Optional.
	BMC func() (*inventory.BMCReport, error)
}

// Report reads everything.
func (m Machine) Report() *inventory.Report {
	r := &inventory.Report{
		AgentVersion: m.Version, Arch: runtime.GOARCH, BootMAC: m.BootMAC, Firmware: "bios",
	}
	if m.exists("sys/firmware/efi") {
		r.Firmware = "uefi"
	}
	r.Kernel = m.text("proc/sys/kernel/osrelease")
	m.smbios(r)
	m.cpu(r)
	if r.Memory.Bytes = m.memory(); r.Memory.Bytes == 0 {
		r.Problems = append(r.Problems, "memory: /proc/meminfo has no MemTotal")
	}
	var err error
	if r.Disks, err = m.Disks(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	for i := range r.Disks {
		if d := &r.Disks[i]; m.Content != nil && d.Bytes > 0 {
			if d.Content, err = m.Content(d.Name); err != nil {
				r.Problems = append(r.Problems, fmt.Sprintf("disk %s: signatures: %v", d.Name, err))
			}
		}
	}
	if r.NICs, err = m.nics(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if r.PCI, err = m.pci(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if m.BMC != nil {
		if r.BMC, err = m.BMC(); err != nil {
			r.Problems = append(r.Problems, "BMC: "+err.Error())
		}
	}
	return r
}

func (m Machine) path(p string) string { return filepath.Join(m.Root, p) }

func (m Machine) exists(p string) bool {
	_, err := os.Stat(m.path(p))
	return err == nil
}

// text reads a small file; a missing one is empty.
func (m Machine) text(p string) string {
	data, err := os.ReadFile(m.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (m Machine) number(p string) int64 {
	n, _ := strconv.ParseInt(m.text(p), 10, 64)
	return n
}

// UUID is the system's UUID in the form of the firmware's own tools.
func (m Machine) UUID() string { return strings.ToLower(m.text("sys/class/dmi/id/product_uuid")) }

func (m Machine) smbios(r *inventory.Report) {
	const dir = "sys/firmware/dmi/tables"
	entry, err := os.ReadFile(m.path(dir + "/smbios_entry_point"))
	if err != nil {
		m.dmi(r)
		return
	}
	tables, err := os.ReadFile(m.path(dir + "/DMI"))
	if err != nil {
		r.Problems = append(r.Problems, fmt.Sprintf("SMBIOS: %v", err))
		return
	}
	info, err := smbios.ParseInfo(entry, tables)
	if err != nil {
		r.Problems = append(r.Problems, fmt.Sprintf("SMBIOS: %v", err))
		m.dmi(r)
		return
	}
	s := &r.System
	if b, err := info.GetBIOSInfo(); err == nil {
		s.BIOSVendor, s.BIOSVersion, s.BIOSDate = word(b.Vendor), word(b.Version), word(b.ReleaseDate)
	}
	if y, err := info.GetSystemInfo(); err == nil {
		s.Manufacturer, s.Product, s.Serial, s.SKU = word(y.Manufacturer), word(y.ProductName),
			word(y.SerialNumber), word(y.SKUNumber)
		if s.UUID = strings.ToLower(y.UUID.String()); !uuid.MatchString(s.UUID) {
			s.UUID = "" // the library has words for all zeros and all ones
		}
	} else {
		r.Problems = append(r.Problems, fmt.Sprintf("SMBIOS: system information: %v", err))
	}
	if boards, err := info.GetBaseboardInfo(); err == nil && len(boards) > 0 {
		s.Board = word(strings.TrimSpace(boards[0].Manufacturer + " " + boards[0].Product))
	}
	if chassis, err := info.GetChassisInfo(); err == nil && len(chassis) > 0 {
		s.Asset = word(chassis[0].AssetTagNumber)
	}
	if cpus, err := info.GetProcessorInfo(); err == nil {
		for _, c := range cpus {
			if r.CPU.Model == "" {
				r.CPU.Model = word(c.Version)
			}
		}
	}
	devices, _ := info.GetMemoryDevices()
	for _, d := range devices {
		if bytes := d.GetSizeBytes(); bytes > 0 {
			r.Memory.DIMMs = append(r.Memory.DIMMs, inventory.DIMM{
				Slot: word(d.DeviceLocator), Bytes: bytes, Type: d.Type.String(), MTs: uint(d.Speed),
				Serial: word(d.SerialNumber),
			})
		}
	}
}

// dmi reads what the kernel itself found, for machines whose tables cannot be read.
func (m Machine) dmi(r *inventory.Report) {
	const dir = "sys/class/dmi/id/"
	r.System = inventory.System{
		Manufacturer: m.text(dir + "sys_vendor"),
		Product:      m.text(dir + "product_name"),
		Serial:       m.text(dir + "product_serial"),
		UUID:         m.UUID(),
		SKU:          m.text(dir + "product_sku"),
		Asset:        m.text(dir + "chassis_asset_tag"),
		Board:        m.text(dir + "board_name"),
		BIOSVendor:   m.text(dir + "bios_vendor"),
		BIOSVersion:  m.text(dir + "bios_version"),
		BIOSDate:     m.text(dir + "bios_date"),
	}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// word drops placeholders of vendors and of the library.
func word(s string) string {
	s = strings.TrimSpace(s)
	switch strings.ToLower(s) {
	case "not specified", "to be filled by o.e.m.", "default string", "none", "unknown":
		return ""
	}
	return s
}

func (m Machine) cpu(r *inventory.Report) {
	sockets, cores := map[string]bool{}, map[string]bool{}
	dirs, _ := filepath.Glob(m.path("sys/devices/system/cpu/cpu[0-9]*"))
	for _, dir := range dirs {
		rel, _ := filepath.Rel(m.path(""), dir)
		pkg := m.text(rel + "/topology/physical_package_id")
		sockets[pkg] = true
		cores[pkg+"/"+m.text(rel+"/topology/core_id")] = true
		r.CPU.Threads++
	}
	r.CPU.Sockets, r.CPU.Cores = len(sockets), len(cores)
	for line := range strings.Lines(m.text("proc/cpuinfo")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			r.CPU.Model = strings.TrimSpace(value)
			break
		}
	}
}

func (m Machine) memory() uint64 {
	for line := range strings.Lines(m.text("proc/meminfo")) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
