package hardware

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	hctl       = regexp.MustCompile(`^\d+:\d+:\d+:\d+$`)
	scsiHost   = regexp.MustCompile(`^host\d+$`)
	usbPort    = regexp.MustCompile(`^\d+-([0-9.]+:[0-9.]+)$`)
	ataPort    = regexp.MustCompile(`^ata\d+$`)
	nvmePart   = regexp.MustCompile(`^nvme\d+(?:c\d+)?n(\d+)$`)
	nvmeName   = regexp.MustCompile(`^(nvme\d+)(n\d+)$`)
)

// byPath returns the place of a disk, by udev's name for it in /dev/disk/by-path, and its transport, from its
// path in /sys/devices. It follows the rules of udev's path_id, so that names from elsewhere match. Numbers
// that depend on the order of discovery (host3, ata5) stay out of it.
func (m Machine) byPath(place string) (path, transport string) {
	parts := strings.Split(place, "/")
	at := func(is func(string) bool) int {
		for i, part := range parts {
			if is(part) {
				return i
			}
		}
		return -1
	}
	has := func(prefix string) bool {
		return at(func(p string) bool { return strings.HasPrefix(p, prefix) }) >= 0
	}
	pci := pciPath(parts)
	usb := at(usbPort.MatchString)
	nvme := at(nvmePart.MatchString)
	scsi := at(hctl.MatchString)
	switch {
	case usb >= 0 && scsi >= 0:
		return joined(pci, "usb-0:"+usbPort.FindStringSubmatch(parts[usb])[1], m.scsiPath(parts, scsi)), "usb"
	case usb >= 0:
		return joined(pci, "usb-0:"+usbPort.FindStringSubmatch(parts[usb])[1]), "usb"
	case nvme >= 0 && pci == "":
		return "", "nvme" // over a network, or joined from several paths
	case nvme >= 0:
		return joined(pci, "nvme-"+nvmePart.FindStringSubmatch(parts[nvme])[1]), "nvme"
	case at(ataPort.MatchString) >= 0 && scsi >= 0:
		return joined(pci, m.ataPath(parts[at(ataPort.MatchString)], parts[scsi])), "sata"
	case has("end_device-") && scsi >= 0:
		return joined(pci, m.sasPath(parts, scsi)), "sas"
	case has("rport-") && scsi >= 0:
		return joined(pci, m.fcPath(parts, scsi)), "fc"
	case scsi >= 0:
		return joined(pci, m.scsiPath(parts, scsi)), "scsi"
	case has("virtio"):
		return pci, "virtio"
	case strings.HasPrefix(place, m.path("sys/devices/virtual")+"/"):
		return "", "virtual"
	}
	return pci, "scsi"
}

func joined(parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	return strings.Join(some, "-")
}

// pciPath names the controller, not the bridges before it. A controller behind one with a PCI domain of its
// own (Intel's VMD) is named behind that.
func pciPath(parts []string) string {
	var names []string
	below := false
	for _, part := range parts {
		switch is := pciAddress.MatchString(part); {
		case is && below:
			names[len(names)-1] = "pci-" + part
		case is:
			names = append(names, "pci-"+part)
			below = true
		default:
			below = false
		}
	}
	return strings.Join(names, "-")
}

// lun is udev's form of a logical unit: plain numbers below 256, others as the eight bytes of SAM-5 section
// 4.7.
func lun(hctl string) string {
	n, _ := strconv.ParseUint(hctl[strings.LastIndexByte(hctl, ':')+1:], 10, 64)
	if n < 256 {
		return fmt.Sprintf("lun-%d", n)
	}
	return fmt.Sprintf("lun-0x%04x%04x00000000", n&0xffff, n>>16&0xffff)
}

// scsiPath counts hosts from the first one of the controller.
func (m Machine) scsiPath(parts []string, scsi int) string {
	host, rest, _ := strings.Cut(parts[scsi], ":")
	n, _ := strconv.Atoi(host)
	first := n
	for i, part := range parts[:scsi] {
		if !scsiHost.MatchString(part) {
			continue
		}
		siblings, _ := filepath.Glob(strings.Join(parts[:i], "/") + "/host[0-9]*")
		for _, s := range siblings {
			if k, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(s), "host")); err == nil {
				first = min(first, k)
			}
		}
	}
	return fmt.Sprintf("scsi-%d:%s", n-first, rest)
}

// ataPath is the port on the controller (ata5's port_no, which counts from 1 on every controller) and the
// drive on it or behind a port multiplier.
func (m Machine) ataPath(port, hctl string) string {
	no := m.text("sys/class/ata_port/" + port + "/port_no")
	n := strings.Split(hctl, ":")
	if n[1] != "0" {
		return "ata-" + no + "." + n[1] + ".0"
	}
	return "ata-" + no + "." + n[2]
}

// sasPath names a disk by its phy, of the controller or of an expander, and a disk with several phys by its
// own address.
func (m Machine) sasPath(parts []string, scsi int) string {
	for i, part := range parts[:scsi] {
		if !strings.HasPrefix(part, "end_device-") || i < 2 {
			continue
		}
		device := func(name, attribute string) string {
			return m.text("sys/class/sas_device/" + name + "/" + attribute)
		}
		port, above := parts[i-1], parts[i-2]
		switch address := device(above, "sas_address"); {
		case m.text("sys/class/sas_port/"+port+"/num_phys") != "1":
			return "sas-" + device(part, "sas_address") + "-" + lun(parts[scsi])
		case address != "":
			return "sas-exp" + address + "-phy" + device(part, "phy_identifier") + "-" + lun(parts[scsi])
		default:
			return "sas-phy" + device(part, "phy_identifier") + "-" + lun(parts[scsi])
		}
	}
	return ""
}

// fcPath names a disk by the port of the array.
func (m Machine) fcPath(parts []string, scsi int) string {
	return "fc-" + m.text("sys/class/fc_transport/"+parts[scsi-1]+"/port_name") + "-" + lun(parts[scsi])
}
