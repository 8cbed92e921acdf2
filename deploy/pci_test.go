package deploy

import (
	"fmt"
	"testing"

	"github.com/pxectl/pxectl/inventory"
)

func TestPCINames(t *testing.T) {
	for _, tt := range []struct{ vendor, device, want string }{
		{"8086", "1533", "Intel Corporation I210 Gigabit Network Connection"},
		{"1000", "0016", "Broadcom / LSI MegaRAID Tri-Mode SAS3508"},
		{"1af4", "1001", "Red Hat, Inc. Virtio block device"},
		{"8086", "ffff", "Intel Corporation"},
		{"0000", "0000", ""},
		{"zzzz", "0000", ""},
		{"8086", "", ""},
		{"80861", "1533", ""},
	} {
		got := pciName(tt.vendor, tt.device)
		if got != tt.want {
			t.Errorf("pciName(%q, %q) = %q, want %q", tt.vendor, tt.device, got, tt.want)
		}
	}
}

// A report that fits without names fits with them. Functions without a driver keep their names longest.
func TestNamesFitInTheReport(t *testing.T) {
	var r inventory.Report
	for i := range 100 {
		p := inventory.PCIDevice{
			Address: fmt.Sprintf("0000:%02x:00.0", i), Class: "020000", Vendor: "8086", Device: "1533",
			Name: "what the agent says", Driver: "igb",
		}
		if i == 50 {
			p.Driver = ""
		}
		r.PCI = append(r.PCI, p)
	}
	bare := withNames(r, 0)
	for _, tt := range []struct {
		name         string
		limit        int
		driven, bare bool
	}{
		{"all fit", 1 << 20, true, true},
		{"those without a driver fit", bare.Size() + 100, false, true},
		{"none fits", bare.Size() + 10, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := withNames(r, tt.limit)
			if got.Size() > max(tt.limit, bare.Size()) {
				t.Errorf("the report has %d bytes, want at most %d", got.Size(), tt.limit)
			}
			for i, want := range map[int]bool{0: tt.driven, 50: tt.bare} {
				name := ""
				if want {
					name = "Intel Corporation I210 Gigabit Network Connection"
				}
				if got.PCI[i].Name != name {
					t.Errorf("function %d is called %q, want %q", i, got.PCI[i].Name, name)
				}
			}
		})
	}
	if r.PCI[0].Name != "what the agent says" {
		t.Error("the agent's report was written into")
	}
}
