package hardware

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/inventory"
)

// tree makes files and, for contents that begin with "-> ", links.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(content) > 3 && content[:3] == "-> " {
			err = os.Symlink(content[3:], path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A server as Linux 6.1 shows it: the attributes are copied from QEMU guests with these disks.
var server = map[string]string{
	"proc/sys/kernel/osrelease": "6.1.0-56-amd64\n",
	"proc/meminfo":              "MemTotal:         466384 kB\nMemFree: 1 kB\n",
	"proc/cpuinfo":              "processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\n",

	"sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
	"sys/devices/system/cpu/cpu0/topology/core_id":             "0\n",
	"sys/devices/system/cpu/cpu1/topology/physical_package_id": "0\n",
	"sys/devices/system/cpu/cpu1/topology/core_id":             "0\n",
	"sys/devices/system/cpu/cpu2/topology/physical_package_id": "1\n",
	"sys/devices/system/cpu/cpu2/topology/core_id":             "0\n",

	"sys/class/dmi/id/sys_vendor":   "QEMU\n",
	"sys/class/dmi/id/product_uuid": "A1234567-89AB-CDEF-A123-456789ABCD01\n",

	"sys/block/vda": "-> ../devices/pci0000:00/0000:00:05.0/virtio2/block/vda",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/size":                      "2097152\n",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/serial":                    "S123",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/queue/logical_block_size":  "512\n",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/queue/physical_block_size": "4096\n",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/queue/rotational":          "1\n",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/device":                    "-> ../../../virtio2",
	"sys/devices/pci0000:00/0000:00:05.0/virtio2/vendor":                              "0x1af4\n",

	"sys/block/nvme0n1": "-> ../devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/size":                     "4194304\n",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/wwid":                     "eui.0011223344556677\n",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/queue/logical_block_size": "4096\n",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/nvme0n1/device":                   "-> ../../nvme0",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/serial":                           "NV1                 \n",
	"sys/devices/pci0000:00/0000:00:06.0/nvme/nvme0/model":                            "QEMU NVMe Ctrl                          \n",

	"sys/block/sda":                   "-> ../devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda",
	"sys/class/ata_port/ata3/port_no": "3\n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda/size":             "2097152\n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda/ro":               "1\n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda/queue/rotational": "1\n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda/device":           "-> ../../../2:0:0:0",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/vendor":                     "ATA     \n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/model":                      "QEMU HARDDISK   \n",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/vpd_pg80":                   "\x00\x80\x00\x14             QM00005",
	"sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/wwid":                       "naa.5000c50015ea71ad\n",

	"sys/block/sdb": "-> ../devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:0/block/sdb",
	"sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:0/block/sdb/size":      "100\n",
	"sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:0/block/sdb/removable": "1\n",

	"sys/block/sdc": "-> ../devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host8/target8:0:0/8:0:0:0/block/sdc",
	"sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host8/target8:0:0/8:0:0:0/block/sdc/device": "-> ../../../8:0:0:0",
	"sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host8/target8:0:0/8:0:0:0/model":            "Virtual Floppy\n",

	// A drive that could have several ports, one of which is plugged in; and one with two.
	"sys/block/nvme2n1":   "-> ../devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1",
	"sys/block/nvme2c2n1": "-> ../devices/pci0000:00/0000:00:07.0/nvme/nvme2/nvme2c2n1",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/size":    "65536\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/hidden":  "0\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/wwid":    "nvme.1b36-4f4e45504f5254-51454d55204e564d65204374726c-00000001\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1/device":  "-> ../../nvme-subsys2",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys2/serial":          "ONEPORT             \n",
	"sys/devices/pci0000:00/0000:00:07.0/nvme/nvme2/nvme2c2n1/hidden": "1\n",
	"sys/devices/pci0000:00/0000:00:07.0/nvme/nvme2/nvme2c2n1/size":   "65536\n",
	"sys/block/nvme3n1":   "-> ../devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1",
	"sys/block/nvme3c3n1": "-> ../devices/pci0000:00/0000:00:08.0/nvme/nvme3/nvme3c3n1",
	"sys/block/nvme3c4n1": "-> ../devices/pci0000:00/0000:00:09.0/nvme/nvme4/nvme3c4n1",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/size":    "65536\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/hidden":  "0\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/wwid":    "eui.1234567890abcdef\n",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1/device":  "-> ../../nvme-subsys3",
	"sys/devices/virtual/nvme-subsystem/nvme-subsys3/serial":          "DUAL                \n",
	"sys/devices/pci0000:00/0000:00:08.0/nvme/nvme3/nvme3c3n1/hidden": "1\n",
	"sys/devices/pci0000:00/0000:00:08.0/nvme/nvme3/nvme3c3n1/wwid":   "eui.1234567890abcdef\n",
	"sys/devices/pci0000:00/0000:00:08.0/nvme/nvme3/nvme3c3n1/size":   "65536\n",
	"sys/devices/pci0000:00/0000:00:09.0/nvme/nvme4/nvme3c4n1/hidden": "1\n",
	"sys/devices/pci0000:00/0000:00:09.0/nvme/nvme4/nvme3c4n1/wwid":   "eui.1234567890abcdef\n",
	"sys/devices/pci0000:00/0000:00:09.0/nvme/nvme4/nvme3c4n1/size":   "65536\n",

	"sys/block/loop0/size": "1\n",

	"sys/class/net/eth0": "-> ../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0",
	"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/address": "52:54:00:77:00:01\n",
	"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/carrier": "1\n",
	"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/speed":   "-1\n",
	"sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/device":  "-> ../../../virtio0",
	"sys/devices/pci0000:00/0000:00:03.0/virtio0/driver":           "-> ../../../../bus/virtio/drivers/virtio_net",
	"sys/class/net/lo/address":                                     "00:00:00:00:00:00\n",

	"sys/bus/pci/devices/0000:00:03.0":             "-> ../../../devices/pci0000:00/0000:00:03.0",
	"sys/devices/pci0000:00/0000:00:03.0/class":    "0x020000\n",
	"sys/devices/pci0000:00/0000:00:03.0/vendor":   "0x1af4\n",
	"sys/devices/pci0000:00/0000:00:03.0/device":   "0x1000\n",
	"sys/devices/pci0000:00/0000:00:03.0/driver":   "-> ../../../bus/pci/drivers/virtio-pci",
	"sys/devices/pci0000:00/0000:00:03.0/modalias": "pci:v00001AF4\n",
	"sys/firmware/efi/fw_platform_size":            "64\n",
}

func TestReport(t *testing.T) {
	m := Machine{
		Root: tree(t, server), BootMAC: "52:54:00:77:00:01", Version: "1.0",
		Content: func(name string) ([]string, error) {
			if name == "sda" {
				return nil, errors.New("medium error")
			}
			return []string{"gpt"}, nil
		},
		BMC: func() (*inventory.BMCReport, error) { return nil, errors.New("silent") },
	}
	got := m.Report()
	got.Arch = "" // the architecture of the machine that runs the test
	want := &inventory.Report{
		AgentVersion: "1.0", Kernel: "6.1.0-56-amd64", Firmware: "uefi", BootMAC: "52:54:00:77:00:01",
		System: inventory.System{Manufacturer: "QEMU", UUID: "a1234567-89ab-cdef-a123-456789abcd01"},
		CPU:    inventory.CPU{Model: "QEMU TCG CPU version 2.5+", Sockets: 2, Cores: 2, Threads: 3},
		Memory: inventory.Memory{Bytes: 466384 << 10},
		Disks: []inventory.Disk{
			{
				Name: "nvme0n1", ByPath: "pci-0000:00:06.0-nvme-1", Transport: "nvme",
				Model: "QEMU NVMe Ctrl", Serial: "NV1",
				WWN: "eui.0011223344556677", Bytes: 2 << 30, LogicalSector: 4096, Content: []string{"gpt"},
			},
			{
				Name: "nvme2n1", ByPath: "pci-0000:00:07.0-nvme-1", Transport: "nvme", Serial: "ONEPORT",
				Bytes: 32 << 20, Content: []string{"gpt"},
			},
			{
				Name: "nvme3n1", Transport: "nvme", Serial: "DUAL", WWN: "eui.1234567890abcdef",
				Bytes: 32 << 20, Content: []string{"gpt"},
			},
			{
				Name: "sda", ByPath: "pci-0000:00:1f.2-ata-3.0", Transport: "sata", Model: "QEMU HARDDISK",
				Serial: "QM00005",
				WWN:    "0x5000c50015ea71ad", HCTL: "2:0:0:0", Bytes: 1 << 30, Rotational: true,
				ReadOnly: true,
			},
			{
				Name: "sdb", ByPath: "pci-0000:00:14.0-usb-0:3:1.0-scsi-0:0:0:0", Transport: "usb",
				Bytes: 51200, Removable: true, Content: []string{"gpt"},
			},
			{
				Name: "sdc", ByPath: "pci-0000:00:14.0-usb-0:4:1.0-scsi-0:0:0:0", Transport: "usb",
				HCTL: "8:0:0:0", Model: "Virtual Floppy",
			},
			{
				Name: "vda", ByPath: "pci-0000:00:05.0", Transport: "virtio", Serial: "S123", Bytes: 1 << 30,
				LogicalSector: 512, PhysicalSector: 4096, Content: []string{"gpt"},
			},
		},
		NICs: []inventory.NIC{
			{
				Name: "eth0", MAC: "52:54:00:77:00:01", Driver: "virtio_net", Path: "0000:00:03.0",
				Carrier: true, Boot: true,
			},
		},
		PCI: []inventory.PCIDevice{{
			Address: "0000:00:03.0", Class: "020000", Vendor: "1af4", Device: "1000", Driver: "virtio-pci",
			Modalias: "pci:v00001AF4",
		}},
		Problems: []string{"disk sda: signatures: medium error", "BMC: silent"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Report (-want +got):\n%s", diff)
	}
}

func TestReportOfNothing(t *testing.T) {
	got := Machine{Root: t.TempDir()}.Report()
	if len(got.Problems) < 3 || got.Firmware != "bios" {
		t.Errorf("Report of an empty tree = %+v, want problems that say what is missing", got)
	}
}

func TestWWN(t *testing.T) {
	for id, want := range map[string]string{
		"naa.5000c50015ea71ad":                      "0x5000c50015ea71ad",
		"naa.600508b400105df70000e00000d80000":      "0x600508b400105df70000e00000d80000",
		"eui.0011223344556677":                      "eui.0011223344556677",
		"eui.01000000010000005cd2e4a4b6c85051":      "eui.01000000010000005cd2e4a4b6c85051",
		"uuid.b0a1e7a6-6c5b-4f3e-9b1f-0c1d2e3f4a5b": "uuid.b0a1e7a6-6c5b-4f3e-9b1f-0c1d2e3f4a5b",
		"eui.0000000000000000":                      "",
		"eui.00000000000000000000000000000000":      "",
		"eui.0000000000000001":                      "",
		"eui.ffffffffffffffff":                      "",
		"naa.5000000000000000":                      "",
		"naa.0000000000000000":                      "",
		"uuid.00000000-0000-0000-0000-000000000000": "",
		"t10.ATA     QEMU HARDDISK  QM00005":        "",
		"nvme.1b36-4f4e-51454d-00000001":            "",
		"":                                          "",
	} {
		if got := wwn(id); got != want {
			t.Errorf("wwn(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestLAN(t *testing.T) {
	answer := func(data ...byte) []byte { return append([]byte{0, 0x11}, data...) }
	ask := func(channel, param byte) ([]byte, error) {
		switch {
		case channel == 1 && param == lanIP:
			return answer(0, 0, 0, 0), nil
		case channel == 2:
			return nil, errors.New("no such channel")
		case channel == 3 && param == lanIP:
			return []byte{0xcc}, nil // completion code: invalid data field
		case channel != 8:
			return answer(), nil
		}
		switch param {
		case lanIP:
			return answer(10, 77, 0, 51), nil
		case lanNetmask:
			return answer(255, 255, 255, 0), nil
		case lanGateway:
			return answer(0, 0, 0, 0), nil
		default:
			return answer(0x52, 0x54, 0, 0xbb, 0, 1), nil
		}
	}
	want := &inventory.BMCReport{
		Address: "10.77.0.51", Netmask: "255.255.255.0", MAC: "52:54:00:bb:00:01", Channel: 8,
	}
	if diff := cmp.Diff(want, lan(ask)); diff != "" {
		t.Errorf("lan (-want +got):\n%s", diff)
	}
}
