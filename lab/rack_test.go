package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/pcap"
	"github.com/pxectl/pxectl/internal/testnet"
)

// TestMain lets the test binary be the rack's supervisor, as pxectl is.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "lab" && os.Args[2] == "supervise" {
		if err := Supervise(context.Background(), os.Args[3], os.Stderr); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bootableDisk is a boot sector that writes diskSays to COM1 and halts:
// mov si,0x7c1a; next: lodsb; test al,al; jz halt; mov dx,0x3f8; out dx,al; jmp next; halt: hlt.
var bootableDisk = append(append([]byte{
	0xbe, 0x1a, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x0c, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5,
	0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xeb, 0xfc,
}, append([]byte(diskSays), make([]byte, 510-26-len(diskSays))...)...), 0x55, 0xaa)

const diskSays = "BOOTED FROM DISK\r\n"

func TestRack(t *testing.T) {
	testnet.Gate(t, "qemu-system-x86_64", "dnsmasq", "tcpdump", "ipmitool", "ip", "nsenter", "script")
	ctx := t.Context()
	machines, err := ParseMachines("m1:bios")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Dir: t.TempDir(), Machines: machines, NoAppliance: true, Freeze: true, Attached: true, Accel: "tcg",
	}
	rack, err := Up(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = rack.Kill(context.Background())
		if t.Failed() {
			t.Log("lab.log:\n" + tail(filepath.Join(c.Dir, "lab.log")))
		}
	})
	if _, err := Up(ctx, c); err == nil || !strings.Contains(err.Error(), "already up") {
		t.Errorf("second Up error = %v, want one with %q", err, "already up")
	}
	ipmi := func(args ...string) string {
		t.Helper()
		out, err := rack.Exec(ctx, "ipmitool",
			append([]string{"-I", "lanplus", "-H", "10.77.0.51", "-U", BMCUser, "-P", BMCPassword},
				args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after three minutes still not: %s", what)
			}
		}
	}
	console := func() string {
		text, _ := os.ReadFile(rack.Console("m1"))
		return string(text)
	}

	// The BMC answers both cipher suites, refuses a wrong password, and keeps boot flags to the bit.
	for _, suite := range []string{"3", "17"} {
		if got := ipmi("-C", suite, "power", "status"); !strings.Contains(got, "Power is off") {
			t.Errorf("suite %s: power status = %q, want off", suite, got)
		}
	}
	if out, err := rack.Exec(ctx, "ipmitool", "-I", "lanplus", "-H", "10.77.0.51", "-U", BMCUser, "-P",
		"wrong", "-R", "1", "power", "status"); err == nil {
		t.Errorf("wrong password = %q, want an error", out)
	}
	ipmi("chassis", "bootdev", "pxe", "options=efiboot")
	if got := ipmi("chassis", "bootparam", "get", "5"); !strings.Contains(got, "a004000000") {
		t.Errorf("boot flags read back = %q, want a004000000", got)
	}
	if got := ipmi("lan", "print", "1"); !strings.Contains(got, "10.77.0.51") ||
		!strings.Contains(got, "52:54:00:bb:00:01") {
		t.Errorf("lan print = %q, want the BMC's address and MAC", got)
	}

	// Power on: the firmware asks for an address, SOL shows the console.
	solLog := filepath.Join(c.Dir, "sol.txt")
	sol := rack.Command(ctx, "script", "-qfc",
		"ipmitool -I lanplus -H 10.77.0.51 -U admin -P secret sol activate", solLog)
	if err := sol.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sol.Process.Kill(); _ = sol.Wait() }()
	until("SOL is active", func() bool { return strings.Contains(tail(solLog), "operational") })
	ipmi("power", "on")
	if got := ipmi("power", "status"); !strings.Contains(got, "Power is on") {
		t.Errorf("power status = %q, want on", got)
	}
	until("m1 sends a DISCOVER", func() bool { return discovered(t, rack, machineMAC(1)) })
	until("SOL shows iPXE", func() bool { return strings.Contains(tail(solLog), "iPXE") })
	until("the console log shows iPXE", func() bool { return strings.Contains(console(), "iPXE") })
	until("the one-shot boot flags are used up", func() bool {
		return strings.Contains(ipmi("chassis", "bootparam", "get", "5"), "0000000000")
	})
	for _, p := range captured(t, rack) {
		if p.Src.Addr() == siteAddress &&
			(p.DHCP.BootFileName != "" || p.DHCP.Options.Has(dhcpv4.OptionBootfileName)) {
			t.Errorf("the site's DHCP server handed out a boot file: %v", p.DHCP.Summary())
		}
		if p.Src.Addr() == netip.MustParseAddr("10.77.0.1") {
			t.Errorf("10.77.0.1 sent DHCP without an appliance: %v", p.DHCP.Summary())
		}
	}

	// Power off, then boot once from disk, whose copy is kept; a reset goes back to the network.
	ipmi("power", "off")
	until("power is off", func() bool { return strings.Contains(ipmi("power", "status"), "Power is off") })
	disk, err := os.OpenFile(rack.Disk("m1", 0), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Write(bootableDisk); err != nil {
		t.Fatal(err)
	}
	disk.Close()
	ipmi("chassis", "bootdev", "disk")
	ipmi("power", "on")
	until("m1 boots from disk", func() bool { return strings.Contains(console(), diskSays) })
	frozen, err := os.Open(rack.Frozen("m1"))
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	sector := make([]byte, 512)
	if _, err := frozen.Read(sector); err != nil || !bytes.Equal(sector, bootableDisk) {
		t.Errorf("copy of the disk before boot begins with %q, %v, want the boot sector", sector[26:44], err)
	}
	before := len(captured(t, rack))
	until("the one-shot is used up", func() bool { return status(t, rack).Boot == "pxe" })
	ipmi("power", "reset")
	until("m1 boots from the network after the reset", func() bool { return len(captured(t, rack)) > before })
	if n := strings.Count(console(), diskSays); n != 1 {
		t.Errorf("booted %d times from disk, want once", n)
	}

	// The BMC's power status follows the process.
	if _, err := rack.Exec(ctx, "kill", "-9", strconv.Itoa(status(t, rack).PID)); err != nil {
		t.Fatal(err)
	}
	until("power is off after QEMU died", func() bool {
		return strings.Contains(ipmi("power", "status"), "Power is off")
	})
	if out, err := rack.Exec(ctx, "ipmitool", "-I", "lanplus", "-H", "10.77.0.51", "-U", BMCUser, "-P",
		BMCPassword, "power", "cycle"); err == nil {
		t.Errorf("power cycle of a machine that is off = %q, want it refused", out)
	}
	ipmi("power", "on")
	until("m1 is on again", func() bool { return status(t, rack).PID != 0 })

	// Orphans are reaped by process 1.
	if _, err := rack.Exec(ctx, "sh", "-c", "(sleep 0.1 & )"); err != nil {
		t.Fatal(err)
	}
	until("no zombie is left", func() bool {
		out, err := rack.Exec(ctx, "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status; true")
		return err == nil && strings.TrimSpace(out) == ""
	})

	// kill -9 leaves nothing behind, and the directory can be used again.
	if err := rack.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	// The SOL session ended with the rack. Wait for its nsenter, which is this test's own process outside the
	// rack.
	_ = sol.Wait()
	if left := processesWith(c.Dir); len(left) > 0 {
		t.Errorf("after kill -9 these are left: %q", left)
	}
	if _, err := Attach(c.Dir); err == nil {
		t.Error("Attach after kill -9 found a rack, want none")
	}
	if rack, err = Up(ctx, c); err != nil {
		t.Fatalf("Up after kill -9: %v", err)
	}
	if got := status(t, rack).Power; got != "off" {
		t.Errorf("power after Up = %q, want off", got)
	}
	if err := rack.Down(ctx); err != nil {
		t.Errorf("Down: %v", err)
	}
	if left := processesWith(c.Dir); len(left) > 0 {
		t.Errorf("after down these are left: %q", left)
	}
}

func TestProbeBootsTCG(t *testing.T) {
	testnet.Gate(t, "qemu-system-x86_64")
	if !boots(t.Context(), newChildren(), t.TempDir(), "tcg", probeLimit) {
		t.Error("boots(tcg) = false, want true")
	}
	if boots(t.Context(), newChildren(), t.TempDir(), "tcg", time.Millisecond) {
		t.Error("boots(tcg) in a millisecond = true, want false")
	}
}

func status(t *testing.T, r *Rack) Status {
	t.Helper()
	machines, err := r.Status(t.Context())
	if err != nil || len(machines) != 1 {
		t.Fatalf("Status = %+v, %v, want one machine", machines, err)
	}
	return machines[0]
}

func captured(t *testing.T, r *Rack) []pcap.Packet {
	t.Helper()
	packets, err := pcap.DHCP(r.Capture())
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

func discovered(t *testing.T, r *Rack, mac string) bool {
	for _, p := range captured(t, r) {
		if p.DHCP.MessageType() == dhcpv4.MessageTypeDiscover && p.DHCP.ClientHWAddr.String() == mac {
			return true
		}
	}
	return false
}

// processesWith lists the processes of the host whose command line names dir.
func processesWith(dir string) (found []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if line := strings.ReplaceAll(string(text), "\x00", " "); strings.Contains(line, dir) &&
			path != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			found = append(found, line)
		}
	}
	return found
}
