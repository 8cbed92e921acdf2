package hardware

import (
	"path/filepath"
	"testing"
)

// The names are those of udev 252 for the same trees.
func TestByPath(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/class/ata_port/ata7/port_no":                      "2\n",
		"sys/class/sas_port/port-0:0/num_phys":                 "1\n",
		"sys/class/sas_device/end_device-0:0/phy_identifier":   "3\n",
		"sys/class/sas_device/end_device-0:0/sas_address":      "0x5000c500a1b2c3d5\n",
		"sys/class/sas_port/port-0:0:1/num_phys":               "1\n",
		"sys/class/sas_device/expander-0:0/sas_address":        "0x500056b37789abff\n",
		"sys/class/sas_device/end_device-0:0:1/phy_identifier": "12\n",
		"sys/class/sas_port/port-0:9/num_phys":                 "4\n",
		"sys/class/sas_device/end_device-0:9/sas_address":      "0x5000cca02b04a7b9\n",
		"sys/class/fc_transport/target4:0:0/port_name":         "0x500507680b2256ca\n",
		"sys/devices/pci0000:00/0000:00:05.0/host2/x":          "",
		"sys/devices/pci0000:00/0000:00:05.0/host3/x":          "",
		"sys/devices/virtual/block/pmem0/size":                 "1\n",
	})
	for place, want := range map[string][2]string{
		"pci0000:00/0000:00:04.0/virtio1/block/vda": {"pci-0000:00:04.0", "virtio"},
		"pci0000:00/0000:00:04.0/virtio1/host9/target9:0:1/9:0:1:0/block/sda": {
			"pci-0000:00:04.0-scsi-0:0:1:0", "scsi",
		},
		"pci0000:00/0000:00:05.0/host3/target3:2:7/3:2:7:0/block/sda": {
			"pci-0000:00:05.0-scsi-1:2:7:0", "scsi",
		},
		"pci0000:00/0000:00:1f.2/ata7/host6/target6:0:0/6:0:0:0/block/sda": {
			"pci-0000:00:1f.2-ata-2.0", "sata",
		},
		"pci0000:00/0000:00:1f.2/ata7/host6/target6:3:0/6:3:0:0/block/sda": {
			"pci-0000:00:1f.2-ata-2.3.0", "sata",
		},
		"pci0000:00/0000:00:01.0/0000:01:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0": {
			"pci-0000:01:00.0-sas-phy3-lun-0", "sas",
		},
		"pci0000:00/0000:00:01.0/0000:01:00.0/host0/port-0:0/expander-0:0/port-0:0:1/end_device-0:0:1/target0:0:1/0:0:1:0/block/sda": {
			"pci-0000:01:00.0-sas-exp0x500056b37789abff-phy12-lun-0", "sas",
		},
		"pci0000:00/0000:00:01.0/0000:01:00.0/host0/port-0:9/end_device-0:9/target0:0:9/0:0:9:300/block/sda": {
			"pci-0000:01:00.0-sas-0x5000cca02b04a7b9-lun-0x012c000000000000", "sas",
		},
		"pci0000:00/0000:00:01.0/0000:01:00.1/host4/rport-4:0-0/target4:0:0/4:0:0:1/block/sda": {
			"pci-0000:01:00.1-fc-0x500507680b2256ca-lun-1", "fc",
		},
		"pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1": {
			"pci-0000:00:06.0-nvme-1", "nvme",
		},
		"pci0000:5d/0000:5d:05.5/pci10000:e0/10000:e0:02.0/10000:e1:00.0/nvme/nvme0/nvme0n1": {
			"pci-0000:5d:05.5-pci-10000:e1:00.0-nvme-1", "nvme",
		},
		"pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:0/block/sdb": {
			"pci-0000:00:14.0-usb-0:3:1.0-scsi-0:0:0:0", "usb",
		},
		"virtual/block/pmem0": {"", "virtual"},
	} {
		m := Machine{Root: root}
		path, transport := m.byPath(filepath.Join(root, "sys/devices", place))
		if got := [2]string{path, transport}; got != want {
			t.Errorf("byPath(%q) = %q, want %q", place, got, want)
		}
	}
}
