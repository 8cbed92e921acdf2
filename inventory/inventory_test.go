package inventory

import (
	"strings"
	"testing"
)

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]MAC{
		"52:54:00:12:34:56":    "52:54:00:12:34:56",
		"52-54-00-AB-cd-56":    "52:54:00:ab:cd:56",
		"525400123456":         "52:54:00:12:34:56",
		"5254.0012.3456":       "52:54:00:12:34:56",
		"01-52-54-00-12-34-56": "52:54:00:12:34:56", // BOOTIF
	} {
		if got, err := ParseMAC(in); err != nil || got != want {
			t.Errorf("ParseMAC(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "52:54:00:12:34", "52:54:00:12:34:5g", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "+2:54:00:12:34:56", "02-52-54-00-12-34-56"} {
		if got, err := ParseMAC(in); err == nil {
			t.Errorf("ParseMAC(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("52:54:00:12:34:56")
	f.Add("01-52-54-00-12-34-56")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			return
		}
		if again, err := ParseMAC(string(m)); err != nil || again != m {
			t.Errorf("ParseMAC(%q) = %q, which parses to %q, %v", s, m, again, err)
		}
	})
}

func TestChooseDisk(t *testing.T) {
	vda := Disk{Name: "vda", Transport: "virtio", Serial: "A", Bytes: 4e9}
	sda := Disk{Name: "sda", Transport: "sata", Serial: "B", Bytes: 8e9, Model: "QEMU HARDDISK"}
	usb := Disk{Name: "sdb", Transport: "usb", Bytes: 16e9, Removable: true}
	ro := Disk{Name: "sdc", Transport: "sata", Bytes: 16e9, ReadOnly: true}
	for _, c := range []struct {
		name  string
		disks []Disk
		hint  *DiskHint
		need  uint64
		want  string // the disk's name, or part of the error
	}{
		{"the only one", []Disk{vda}, nil, 1e9, "vda"},
		{"usb and read-only disks are no candidates", []Disk{usb, vda, ro}, nil, 1e9, "vda"},
		{"none", nil, nil, 1e9, "no disk to write to (have: none)"},
		{"none but usb", []Disk{usb}, nil, 1e9, "no disk to write to (have: sdb"},
		{"two without a hint", []Disk{vda, sda}, nil, 1e9, "2 disks and no hint which one: vda virtio 4.0 GB serial=A; sda"},
		{"two with a hint", []Disk{vda, sda}, &DiskHint{Serial: "B"}, 1e9, "sda"},
		{"hint by model, other case", []Disk{vda, sda}, &DiskHint{Model: "qemu harddisk"}, 1e9, "sda"},
		{"hint that matches nothing", []Disk{vda}, &DiskHint{Serial: "Z"}, 1e9, "no disk matches serial=Z (have: vda"},
		{"too small", []Disk{vda}, nil, 5e9, "disk vda holds 4000000000 bytes, the image needs 5000000000"},
	} {
		got, err := ChooseDisk(c.disks, c.hint, c.need)
		said := got.Name
		if err != nil {
			said = err.Error()
		}
		if !strings.HasPrefix(said, c.want) {
			t.Errorf("%s: ChooseDisk = %q, want %q", c.name, said, c.want)
		}
	}
}

func TestDiskIdentity(t *testing.T) {
	was := Disk{Name: "sda", Serial: "S1", ByPath: "pci-0000:00:05.0", Bytes: 100}
	for name, c := range map[string]struct {
		now  Disk
		want bool
	}{
		"renamed":              {Disk{Name: "sdb", Serial: "S1", ByPath: "pci-0000:00:06.0", Bytes: 100}, true},
		"another serial":       {Disk{Name: "sda", Serial: "S2", ByPath: "pci-0000:00:05.0", Bytes: 100}, false},
		"same serial, resized": {Disk{Name: "sda", Serial: "S1", Bytes: 101}, false},
		"serial vanished":      {Disk{Name: "sda", ByPath: "pci-0000:00:05.0", Bytes: 100}, false},
	} {
		if got := was.Identity().Is(c.now); got != c.want {
			t.Errorf("%s: Is = %v, want %v", name, got, c.want)
		}
	}
	plain := Disk{Name: "vda", ByPath: "pci-1", Bytes: 100}
	if plain.Identity().Is(Disk{Name: "vda", ByPath: "pci-2", Bytes: 100}) {
		t.Error("a disk without serial and WWN in another slot passes for the chosen one")
	}
}

func TestParseDiskHint(t *testing.T) {
	for in, want := range map[string]string{
		"/dev/sda":             "name=sda",
		"serial=S1":            "serial=S1",
		"model=QEMU, name=vda": "name=vda,model=QEMU",
		"wwn=":                 "error: disk hint \"wwn=\": wwn has no value",
		"colour=red":           "error: disk hint \"colour=red\": unknown key \"colour\"",
	} {
		h, err := ParseDiskHint(in)
		got := h.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("ParseDiskHint(%q) = %q, want %q", in, got, want)
		}
	}
}
