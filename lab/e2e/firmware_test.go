package e2e

import (
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab"
)

// allFirmwares is the environment variable that asks for every row. `make test` boots one BIOS and one UEFI
// PXE machine in other tests, and the rows marked always here.
const allFirmwares = "PXECTL_FIRMWARE"

func onlyWithAllFirmwares(t *testing.T) {
	if os.Getenv(allFirmwares) != "all" {
		t.Skipf("SKIPPED %s: %s=all is not set; run it with `make test-firmware`", t.Name(), allFirmwares)
	}
}

// The rows of docs/firmware.md.
var firmwares = []struct {
	name     string
	machine  string   // in the form of lab.ParseMachines
	beside   []string // the site's DHCP servers, one boot with each
	always   bool     // with the first of them
	chain    []string
	firmware string
	arch     string
}{
	{
		name:    "SeaBIOS, iPXE ROM, e1000",
		machine: "m1:bios::e1000",
		beside:  []string{lab.Dnsmasq, lab.NoDHCP},
		chain:   []string{"ipxe", "script"}, firmware: "bios", arch: "amd64",
	},
	{
		name:    "SeaBIOS, iPXE ROM, virtio",
		machine: "m1:bios",
		beside:  []string{lab.Dnsmasq, lab.Kea, lab.NoDHCP},
		chain:   []string{"ipxe", "script"}, firmware: "bios", arch: "amd64",
	},
	{
		name: "OVMF, PXE, virtio", machine: "m1:uefi", beside: []string{lab.Dnsmasq, lab.Kea, lab.NoDHCP},
		chain:    []string{"uefi-pxe", "tftp snponly.efi", "tftp autoexec.ipxe", "script"},
		firmware: "uefi",
		arch:     "amd64",
	},
	{
		name: "OVMF, iPXE ROM, e1000", machine: "m1:uefi-rom", beside: []string{lab.Dnsmasq, lab.NoDHCP},
		chain: []string{"ipxe", "script"}, firmware: "uefi", arch: "amd64",
	},
	{
		name:     "OVMF, HTTP boot, virtio",
		machine:  "m1:uefi-http",
		beside:   []string{lab.Dnsmasq, lab.NoDHCP},
		always:   true,
		chain:    []string{"uefi-http", "http snponly.efi", "http autoexec.ipxe", "script"},
		firmware: "uefi",
		arch:     "amd64",
	},
	{
		name: "AAVMF, PXE, virtio", machine: "m1:arm64", beside: []string{lab.Dnsmasq, lab.NoDHCP},
		chain:    []string{"uefi-pxe", "tftp ipxe-arm64.efi", "tftp autoexec.ipxe", "script"},
		firmware: "uefi",
		arch:     "arm64",
	},
	{
		name: "AAVMF, HTTP boot, virtio", machine: "m1:arm64-http", beside: []string{lab.Dnsmasq, lab.NoDHCP},
		chain:    []string{"uefi-http", "http ipxe-arm64.efi", "http autoexec.ipxe", "script"},
		firmware: "uefi",
		arch:     "arm64",
	},
}

// Every firmware boots until its agent has reported, beside a DHCP server without boot options or with ours
// alone, by the steps in docs/firmware.md.
func TestFirmware(t *testing.T) {
	for _, tt := range firmwares {
		for i, dhcp := range tt.beside {
			t.Run(tt.name+"/"+dhcp, func(t *testing.T) {
				if !tt.always || i > 0 {
					onlyWithAllFirmwares(t)
				}
				r := newRackBeside(t, dhcp, tt.machine, path.Join(ramdisk, tt.arch, "vmlinuz"))
				on := time.Now()
				r.powerOn("m1")
				r.until(60*time.Second, "the agent has reported", func() bool {
					return r.machine(mac1).Report != nil
				})
				m := r.machine(mac1)
				if m.Report.Firmware != tt.firmware || m.Report.Arch != tt.arch {
					t.Errorf("the agent reports firmware %s on %s, want %s on %s", m.Report.Firmware,
						m.Report.Arch, tt.firmware, tt.arch)
				}
				chain, discover, script := r.chain(mac1)
				if diff := cmp.Diff(tt.chain, chain); diff != "" {
					t.Errorf("the steps of the boot (-want +got):\n%s", diff)
				}
				if dhcp != lab.NoDHCP {
					r.proveWire()
				}
				since := func(at time.Time) float64 { return at.Sub(on).Seconds() }
				t.Logf("| %s | %s | %s | %.1f | %.1f | %.1f |", tt.name, dhcp, strings.Join(chain, " → "),
					since(discover), since(script), since(m.Boot.RegisteredAt))
			})
		}
	}
}

// chain lists the steps by which a machine came to its script, the class of its first DISCOVER and the
// programs that it got, with the times of the first and the last step.
func (r *rack) chain(mac string) (steps []string, discover, script time.Time) {
	r.t.Helper()
	err := r.client.Events(r.t.Context(), api.EventQuery{Machine: mac}, func(e inventory.Event) error {
		switch {
		case !script.IsZero():
		case e.Kind == inventory.KindDHCP && discover.IsZero() && e.Data["class"] != "":
			steps, discover = append(steps, e.Data["class"]), e.At
		case e.Kind == inventory.KindTFTP && e.Data["result"] == "sent":
			steps = append(steps, "tftp "+e.Data["file"])
		case e.Kind == inventory.KindHTTP && e.Data["action"] != "":
			steps, script = append(steps, "script"), e.At
		case e.Kind == inventory.KindHTTP && strings.HasPrefix(e.Text, "GET ") &&
			!strings.HasPrefix(e.Data["path"], "/ramdisk/"):
			steps = append(steps, "http "+path.Base(e.Data["path"]))
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return steps, discover, script
}
