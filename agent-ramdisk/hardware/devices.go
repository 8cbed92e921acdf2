package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// nics lists the network cards that are hardware: those with a device.
func (m Machine) nics() ([]inventory.NIC, error) {
	entries, err := os.ReadDir(m.path("sys/class/net"))
	if err != nil {
		return nil, fmt.Errorf("network cards: %w", err)
	}
	var nics []inventory.NIC
	for _, e := range entries {
		dir := "sys/class/net/" + e.Name() + "/"
		if !m.exists(dir + "device") {
			continue
		}
		mac, err := inventory.ParseMAC(m.text(dir + "address"))
		if err != nil {
			continue // InfiniBand, or a card that has no address yet
		}
		n := inventory.NIC{
			Name: e.Name(), MAC: mac,
			Driver:  m.driver(dir + "device"),
			Carrier: m.number(dir+"carrier") == 1,
			Boot:    mac == m.BootMAC,
		}
		if speed := m.number(dir + "speed"); speed > 0 { // -1 when the driver does not know
			n.Mbps = int(speed)
		}
		if place, err := filepath.EvalSymlinks(m.path(dir + "device")); err == nil {
			for part := range strings.SplitSeq(place, "/") {
				if pciAddress.MatchString(part) {
					n.Path = part
				}
			}
		}
		nics = append(nics, n)
	}
	return nics, nil
}

// driver is the name of a device's driver. For virtio_net it is that of the virtio device.
func (m Machine) driver(dir string) string {
	link, err := os.Readlink(m.path(dir + "/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}

func (m Machine) pci() ([]inventory.PCIDevice, error) {
	const bus = "sys/bus/pci/devices"
	entries, err := os.ReadDir(m.path(bus))
	if os.IsNotExist(err) {
		return nil, nil // a machine without PCI
	}
	if err != nil {
		return nil, fmt.Errorf("PCI: %w", err)
	}
	var devices []inventory.PCIDevice
	for _, e := range entries {
		dir := bus + "/" + e.Name() + "/"
		hex := func(name string) string { return strings.TrimPrefix(m.text(dir+name), "0x") }
		devices = append(devices, inventory.PCIDevice{
			Address: e.Name(), Class: hex("class"), Vendor: hex("vendor"), Device: hex("device"),
			Driver: m.driver(dir), Modalias: m.text(dir + "modalias"),
		})
	}
	return devices, nil
}
