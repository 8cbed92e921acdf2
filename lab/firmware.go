package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Firmware of a machine.
const (
	BIOS      = "bios"       // SeaBIOS; PXE by the NIC's iPXE option ROM
	UEFI      = "uefi"       // OVMF; PXE by EDK2's own client where it knows the NIC (virtio)
	UEFIROM   = "uefi-rom"   // OVMF; PXE by the iPXE ROM of the NIC, which takes the place of EDK2's client
	UEFIHTTP  = "uefi-http"  // OVMF; EDK2's own HTTP boot, and no PXE
	ARM64     = "arm64"      // AAVMF; PXE by EDK2's own client
	ARM64HTTP = "arm64-http" // AAVMF; EDK2's own HTTP boot, and no PXE
)

var firmwares = []string{BIOS, UEFI, UEFIROM, UEFIHTTP, ARM64, ARM64HTTP}

// Debian's paths of the firmware: code, and variables in their factory state.
var (
	ovmf  = [2]string{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}
	aavmf = [2]string{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}
)

func (m Machine) arm() bool  { return m.Firmware == ARM64 || m.Firmware == ARM64HTTP }
func (m Machine) http() bool { return m.Firmware == UEFIHTTP || m.Firmware == ARM64HTTP }

// flash has the code and the variables of a machine with EFI firmware.
func (m Machine) flash() (files [2]string, ok bool) {
	switch {
	case m.Firmware == BIOS:
		return files, false
	case m.arm():
		return aavmf, true
	}
	return ovmf, true
}

// rom says whether the NIC keeps its iPXE ROM. Without one, EDK2's own client runs.
func (m Machine) rom() bool {
	return m.Firmware == BIOS || m.Firmware == UEFIROM || m.Firmware == UEFI && m.NIC != "virtio"
}

// checkFirmware refuses a machine that could not boot from the network.
func (m Machine) checkFirmware() error {
	if err := oneOf("firmware", m.Firmware, firmwares...); err != nil {
		return err
	}
	if m.NIC == "e1000" && !slices.Contains([]string{BIOS, UEFI, UEFIROM}, m.Firmware) {
		return fmt.Errorf("nic e1000: firmware %s has no driver for it; use virtio", m.Firmware)
	}
	return nil
}

func varsPath(dir, machine string) string { return filepath.Join(machineDir(dir, machine), "vars.fd") }

// makeFlash gives a machine with EFI firmware its own variables.
func makeFlash(dir string, m Machine) error {
	files, ok := m.flash()
	if !ok {
		return nil
	}
	vars := varsPath(dir, m.Name)
	if _, err := os.Stat(vars); !os.IsNotExist(err) {
		return err
	}
	return copySparse(vars, files[1])
}

func qemuProgram(m Machine) string {
	if m.arm() {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// boardArgs select the board, its processor, and the firmware.
func boardArgs(m Machine, dir, accel string) []string {
	machine, cpu := "pc,graphics=off", "max" // graphics=off sends SeaBIOS and iPXE to the serial port
	switch {
	case m.arm():
		machine, cpu, accel = "virt", "cortex-a57", "tcg"
	case m.Firmware != BIOS:
		machine = "q35"
	}
	if accel == "kvm" {
		cpu = "host"
	}
	args := []string{"-machine", machine, "-accel", accel, "-cpu", cpu}
	if m.arm() {
		// This processor has no instruction for random numbers. The firmware's random numbers help the kernel
		// from the start; without them, the agent's first DHCP packet waits minutes.
		args = append(args, "-device", "virtio-rng-pci")
	}
	if files, ok := m.flash(); ok {
		args = append(args,
			"-drive", "if=pflash,format=raw,readonly=on,file="+files[0],
			"-drive", "if=pflash,format=raw,file="+escape(varsPath(dir, m.Name)))
	}
	if m.http() {
		// EDK2 tries HTTP only after PXE over IPv4 and IPv6 have failed, which takes a minute.
		for _, v := range []string{"4", "6"} {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv"+v+"PXESupport,string=no")
		}
	}
	return args
}
