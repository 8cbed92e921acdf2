package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// checkInstalled names the Debian packages that the rack needs and this host lacks.
func checkInstalled(c Config) error {
	type need struct{ what, pkg string }
	needs := []need{
		{"qemu-system-x86_64", "qemu-system-x86"},
		{"dnsmasq", "dnsmasq-base"},
		{"tcpdump", "tcpdump"},
		{"ip", "iproute2"},
		{"nsenter", "util-linux"},
		{"/dev/net/tun", ""},
	}
	if c.DHCP == Kea {
		needs = append(needs, need{keaProgram, "kea-dhcp4-server"})
	}
	for _, m := range c.Machines {
		switch files, _ := m.flash(); {
		case m.Firmware == BIOS:
			needs = append(needs, need{"/usr/share/seabios/bios-256k.bin", "seabios"})
		case m.arm():
			needs = append(needs, need{qemuProgram(m), "qemu-system-arm"}, need{files[0], "qemu-efi-aarch64"},
				need{files[1], "qemu-efi-aarch64"})
		default:
			needs = append(needs, need{files[0], "ovmf"}, need{files[1], "ovmf"})
		}
		if m.rom() {
			needs = append(needs, need{"/usr/lib/ipxe/qemu/efi-" + m.NIC + ".rom", "ipxe-qemu"})
		}
	}
	var what, packages []string
	for _, n := range needs {
		if installed(n.what) || slices.Contains(what, n.what) {
			continue
		}
		if n.pkg == "" {
			return fmt.Errorf("%s is missing: load the kernel's tun driver (modprobe tun)", n.what)
		}
		what = append(what, n.what)
		if !slices.Contains(packages, n.pkg) {
			packages = append(packages, n.pkg)
		}
	}
	if len(what) == 0 {
		return nil
	}
	return fmt.Errorf("not installed: %s; install with: apt-get install --no-install-recommends %s",
		strings.Join(what, ", "), strings.Join(packages, " "))
}

func installed(what string) bool {
	if filepath.IsAbs(what) {
		_, err := os.Stat(what)
		return err == nil
	}
	_, err := exec.LookPath(what)
	return err == nil
}
