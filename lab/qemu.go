package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Descriptors that QEMU is started with. The supervisor has the other ends.
const (
	fdQMP = 3 + iota
	fdConsole
)

// bootindex of a NIC, before and behind the disks. The firmware reads the order through fw_cfg at the start
// and at each reset of the guest, and we can set it in between.
const (
	nicFirst     = 1
	diskIndex    = 5
	nicLast      = 9
	nicPath      = "/machine/peripheral/nic0"
	nicIndexProp = "bootindex"
)

func nicIndex(d bootDevice) int {
	if d == bootPXE {
		return nicFirst
	}
	return nicLast
}

// qemuArgs is the command line of machine number n, stopped before its first instruction.
func qemuArgs(m Machine, n int, dir, accel string, first bootDevice) []string {
	args := append(boardArgs(m, dir, accel),
		"-name", m.Name, "-S", "-nodefaults", "-display", "none", "-no-user-config",
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.Memory),
		"-uuid", machineUUID(n),
		"-smbios", "type=1,manufacturer=pxectl,product=Virtual Rack Machine,serial=LAB"+
			fmt.Sprintf("%02d", n)+",uuid="+machineUUID(n),
		"-smbios", "type=3,manufacturer=pxectl,asset="+m.Name,
		"-chardev", fmt.Sprintf("socket,id=qmp0,fd=%d", fdQMP), "-mon", "chardev=qmp0,mode=control",
		"-chardev", fmt.Sprintf("socket,id=con0,fd=%d", fdConsole), "-serial", "chardev:con0",
		"-netdev", "tap,id=net0,script=no,downscript=no,ifname="+tapName(n),
		"-device", nicDevice(m, n, first),
	)
	if !m.arm() { // its board has no ISA bus, so its BMC is reached only over the LAN
		args = append(args,
			// reconnect makes QEMU connect once it runs. If it were connected from the start, ipmi-bmc-extern
			// would send to an interface that does not exist yet, and QEMU 7.2 crashes.
			"-chardev", "socket,id=ipmi0,reconnect=1,abstract=on,path="+inbandName(n),
			"-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0")
	}
	ahci := false
	for i, d := range m.Disks {
		// cache=unsafe leaves out the host's fsync: the page cache survives any death of QEMU, and a rack
		// need not survive the host's own power cut.
		args = append(args, "-drive",
			fmt.Sprintf("if=none,id=disk%d,format=raw,cache=unsafe,discard=unmap,file=%s", i,
				escape(diskPath(dir, m.Name, i))))
		if d.Bus == "sata" && !ahci {
			args = append(args, "-device", "ich9-ahci,id=sata")
			ahci = true
		}
		args = append(args, "-device", diskDevice(d, i))
	}
	return args
}

// inbandName names the socket of a machine's in-band BMC. It is an abstract one: it belongs to the rack's
// network namespace and has no file.
func inbandName(n int) string { return fmt.Sprintf("pxectl-lab-ipmi%d", n) }

func nicDevice(m Machine, n int, first bootDevice) string {
	dev := fmt.Sprintf(",id=nic0,netdev=net0,mac=%s,bootindex=%d", machineMAC(n), nicIndex(first))
	model := "virtio-net-pci"
	if m.NIC == "e1000" {
		model = "e1000"
	}
	if !m.rom() {
		dev += ",romfile="
	}
	return model + dev
}

func diskDevice(d Disk, i int) string {
	common := fmt.Sprintf(",drive=disk%d,serial=%s,bootindex=%d", i, d.Serial, diskIndex+i)
	sectors := fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", d.Sector, d.Sector)
	switch d.Bus {
	case "sata":
		return fmt.Sprintf("ide-hd,bus=sata.%d", i) + common
	case "nvme":
		return "nvme" + common + sectors
	default:
		return "virtio-blk-pci" + common + sectors
	}
}

func diskPath(dir, machine string, i int) string {
	return filepath.Join(machineDir(dir, machine), fmt.Sprintf("disk%d.raw", i))
}

// escape doubles the commas of a path, as QEMU's option syntax requires.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// makeHardware creates missing disks and firmware variables of a machine.
func makeHardware(dir string, m Machine) error {
	if err := os.MkdirAll(machineDir(dir, m.Name), 0o755); err != nil {
		return err
	}
	if err := makeFlash(dir, m); err != nil {
		return err
	}
	for i, d := range m.Disks {
		path := diskPath(dir, m.Name, i)
		switch st, err := os.Stat(path); {
		case os.IsNotExist(err):
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			f.Close()
			if err := os.Truncate(path, int64(d.Size)); err != nil {
				return err
			}
		case err != nil:
			return err
		case st.Size() != int64(d.Size):
			return fmt.Errorf("%s is %d bytes, the rack's configuration says %d; begin anew with --fresh",
				path, st.Size(), d.Size)
		}
	}
	return nil
}
