package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each firmware has its board, its flash, its ROM or none, and its remaining clients.
func TestFirmwareOnTheCommandLine(t *testing.T) {
	tests := []struct {
		firmware, nic string
		program       string
		want, absent  []string // parts of the command line
	}{
		{
			"bios", "virtio", "qemu-system-x86_64",
			[]string{"pc,graphics=off", "isa-ipmi-kcs"},
			[]string{"pflash", "romfile", "PXESupport"},
		},
		{
			"uefi", "virtio", "qemu-system-x86_64",
			[]string{"q35", "OVMF_CODE", "romfile=", "isa-ipmi-kcs"},
			[]string{"PXESupport"},
		},
		{"uefi", "e1000", "qemu-system-x86_64", []string{"q35", "OVMF_CODE", "e1000,"}, []string{"romfile"}},
		{
			"uefi-rom", "virtio", "qemu-system-x86_64",
			[]string{"q35", "OVMF_CODE"},
			[]string{"romfile", "PXESupport"},
		},
		{
			"uefi-http", "virtio", "qemu-system-x86_64",
			[]string{"q35", "romfile=", "IPv4PXESupport,string=no", "IPv6PXESupport,string=no"},
			nil,
		},
		{
			"arm64", "virtio", "qemu-system-aarch64",
			[]string{"virt", "cortex-a57", "AAVMF_CODE", "romfile=", "tcg"},
			[]string{"kvm", "isa-ipmi", "PXESupport"},
		},
		{
			"arm64-http", "virtio", "qemu-system-aarch64",
			[]string{"AAVMF_CODE", "IPv4PXESupport,string=no"},
			[]string{"kvm", "isa-ipmi"},
		},
	}
	for _, tt := range tests {
		m := Machine{Name: "m1", Firmware: tt.firmware, NIC: tt.nic}
		if err := checkMachines([]Machine{m}); err != nil {
			t.Errorf("%s, %s: %v", tt.firmware, tt.nic, err)
			continue
		}
		if got := qemuProgram(m); got != tt.program {
			t.Errorf("%s: program = %s, want %s", tt.firmware, got, tt.program)
		}
		args := qemuArgs(m, 1, "/rack", "kvm", bootPXE)
		has := func(part string) bool {
			return slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, part) })
		}
		for _, part := range tt.want {
			if !has(part) {
				t.Errorf("%s, %s: no %q in %q", tt.firmware, tt.nic, part, args)
			}
		}
		for _, part := range tt.absent {
			if has(part) {
				t.Errorf("%s, %s: %q in %q", tt.firmware, tt.nic, part, args)
			}
		}
	}
}

// A machine with EFI firmware gets its variables once, and keeps what it wrote to them; a BIOS needs none.
func TestMakeFlash(t *testing.T) {
	dir := t.TempDir()
	saved := ovmf
	t.Cleanup(func() { ovmf = saved })
	ovmf[1] = filepath.Join(dir, "factory.fd")
	if err := os.WriteFile(ovmf[1], []byte("factory"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, m := range []Machine{{Name: "m1", Firmware: BIOS}, {Name: "m2", Firmware: UEFI}} {
		if err := os.MkdirAll(machineDir(dir, m.Name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := makeFlash(dir, m); err != nil {
			t.Fatalf("makeFlash for %s: %v", m.Firmware, err)
		}
		got, err := os.ReadFile(varsPath(dir, m.Name))
		if m.Firmware == BIOS {
			if !os.IsNotExist(err) {
				t.Errorf("a BIOS has variables: %q, %v", got, err)
			}
			continue
		}
		if string(got) != "factory" {
			t.Errorf("variables = %q, %v, want the factory's", got, err)
		}
		if err := os.WriteFile(varsPath(dir, m.Name), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := makeFlash(dir, m); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(varsPath(dir, m.Name)); string(got) != "mine" {
			t.Errorf("variables after a second rack = %q, want what the firmware wrote", got)
		}
	}
}
