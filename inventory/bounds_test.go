package inventory

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// large is a report of the largest servers of a rack: two sockets with all their slots filled, a shelf of
// disks, cards with many functions. The texts are as long as those of such machines.
func large(disks, dimms, pci int) Report {
	r := Report{
		AgentVersion: "1.4.2-17-g2f1c9aa", Kernel: "6.12.57+deb13-amd64", Arch: "amd64", Firmware: "uefi",
		BootMAC: "b0:7b:25:00:00:01",
		System: System{
			Manufacturer: "Dell Inc.", Product: "PowerEdge R760xd2", Serial: "7XK2Q04",
			UUID: "4c4c4544-0058-4b10-8032-b7c04f513034", SKU: "SKU=0B3C;ModelName=PowerEdge R760xd2",
			Asset: "RZ2-R14-U21", Board: "Dell Inc. 0KRFPX", BIOSVendor: "Dell Inc.", BIOSVersion: "2.5.4",
			BIOSDate: "01/16/2025",
		},
		CPU:    CPU{Model: "Intel(R) Xeon(R) Platinum 8592+", Sockets: 2, Cores: 128, Threads: 256},
		Memory: Memory{Bytes: 4 << 40},
		BMC: &BMCReport{
			Address: "10.20.30.41", Netmask: "255.255.255.0", Gateway: "10.20.30.1", MAC: "b0:7b:25:00:00:ff",
			Channel: 1, Firmware: "7.20",
		},
	}
	for i := range disks {
		r.Disks = append(r.Disks, Disk{
			Name:      fmt.Sprintf("sd%c%c", 'a'+i/26, 'a'+i%26),
			ByPath:    fmt.Sprintf("pci-0000:65:00.0-sas-exp0x500056b31234abff-phy%d-lun-0", i),
			Transport: "sas",
			Vendor:    "SEAGATE", Model: "ST20000NM002D-3KW", Serial: fmt.Sprintf("ZVT%017d", i),
			WWN: fmt.Sprintf("0x5000c500e%07x", i), HCTL: fmt.Sprintf("0:0:%d:0", i),
			Bytes: 20000588955648, LogicalSector: 512, PhysicalSector: 4096, Rotational: true,
			Content: []string{"gpt", "LVM2_member", "linux_raid_member"},
		})
	}
	for i := range 12 {
		r.NICs = append(r.NICs, NIC{
			Name: fmt.Sprintf("enp%ds0f%dnp%d", 33+i/2, i%2, i%2),
			MAC:  MAC(fmt.Sprintf("b0:7b:25:00:01:%02x", i)), Driver: "mlx5_core",
			Path: fmt.Sprintf("0000:%02x:00.%d", 33+i/2, i%2), Carrier: true, Mbps: 100000, Boot: i == 0,
		})
	}
	for i := range dimms {
		r.Memory.DIMMs = append(r.Memory.DIMMs, DIMM{
			Slot: fmt.Sprintf("PROC %d DIMM %d", 1+i/32, i%32), Bytes: 64 << 30, Type: "DDR5", MTs: 5600,
			Serial: fmt.Sprintf("80CE0123456789%02X", i),
		})
	}
	for i := range pci {
		p := PCIDevice{
			Address: fmt.Sprintf("0000:%02x:%02x.%d", i/32, i/8%32, i%8), Class: "088000", Vendor: "8086",
			Device:   "09a2",
			Modalias: fmt.Sprintf("pci:v00008086d000009A2sv00008086sd000009A2bc08sc80i%02x", i&255),
		}
		if i%2 == 0 {
			p.Driver = "intel_uncore"
		}
		r.PCI = append(r.PCI, p)
	}
	return r
}

// Real machines fit. The largest ones lose something, with a note, but never a disk or a network card.
func TestLargeServersFit(t *testing.T) {
	for _, c := range []struct {
		name              string
		disks, dimms, pci int
		limit             int
		leftOut           string // in Problems; "" for nothing
	}{
		{"2 sockets, 24 disks", 24, 32, 180, StrangerReport, ""},
		{
			"2 sockets, 64 DIMMs, 40 disks, 300 PCI functions", 40, 64, 300, StrangerReport,
			"module aliases of PCI functions that have a driver",
		},
		{
			"4 sockets, 96 DIMMs, 60 disks, 600 PCI functions", 60, 96, 600, StrangerReport,
			"PCI functions that have a driver, and bridges",
		},
		{"the same, approved", 60, 96, 600, KnownReport, ""},
		{
			"8 sockets, 192 DIMMs, two shelves of 84 disks, 1000 PCI functions", 168, 192, 1000, KnownReport,
			"",
		},
		{"the same, a stranger", 168, 192, 1000, StrangerReport, "DIMMs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := large(c.disks, c.dimms, c.pci)
			out := in.Bounded(c.limit)
			t.Logf("%d bytes, bounded %d", in.size(), out.size())
			if out.size() > c.limit || len(out.Disks) != c.disks || len(out.NICs) != len(in.NICs) {
				t.Errorf("%d bytes, %d disks and %d network cards, want at most %d, all %d and all %d",
					out.size(), len(out.Disks), len(out.NICs), c.limit, c.disks, len(in.NICs))
			}
			said := strings.Join(out.Problems, "\n")
			if c.leftOut == "" && said != "" || !strings.Contains(said, c.leftOut) {
				t.Errorf("problems %q, want %q left out", said, c.leftOut)
			}
			if c.leftOut == "" && !reflect.DeepEqual(in, out) {
				t.Errorf("a report that fits was changed: %+v", out)
			}
		})
	}
}

func TestBoundedReport(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name string
		in   Report
		want func(Report) string // the mistake
	}{
		{"300,000 problems", Report{Problems: make([]string, 300_000)}, func(r Report) string {
			return differ(len(r.Problems), maxProblems, r.Problems[0],
				"300000 problems are reported, and the first 32 kept")
		}},
		{"a long serial number", Report{System: System{Serial: long}}, func(r Report) string {
			return differ(len(r.System.Serial), MaxWord, r.System.Serial[:9], "xxxxxxxxx")
		}},
		{
			"characters that move a cursor",
			Report{CPU: CPU{Model: "a\x1b[2J\u009bb\u202ec"}},
			func(r Report) string {
				return differ(0, 0, r.CPU.Model, "a [2J b c")
			},
		},
		{"half a character", Report{CPU: CPU{Model: strings.Repeat("é", MaxWord)}}, func(r Report) string {
			return differ(utf8.ValidString(r.CPU.Model), true, r.CPU.Model[len(r.CPU.Model)-3:], "…")
		}},
		{
			"addresses and UUID that are none",
			Report{
				BootMAC: MAC(long), System: System{UUID: long}, NICs: []NIC{{MAC: "ff:ff:ff:ff:ff:ff"}},
				BMC: &BMCReport{MAC: "x", Address: long},
			},
			func(r Report) string {
				return differ(len(r.BootMAC)+len(r.System.UUID)+len(r.NICs[0].MAC)+len(r.BMC.MAC), 0,
					r.BMC.Address[:1], "x") + differ(len(r.BMC.Address), MaxWord, "", "")
			},
		},
		{
			"addresses and UUID in other forms",
			Report{
				BootMAC: "52-54-00-AB-00-01",
				System:  System{UUID: "4C4C4544-0058-4B10-8032-B7C04F513034"},
			},
			func(r Report) string {
				return differ(r.BootMAC, MAC("52:54:00:ab:00:01"), r.System.UUID,
					"4c4c4544-0058-4b10-8032-b7c04f513034")
			},
		},
		{
			"many disks with many signatures",
			Report{Disks: []Disk{{Content: make([]string, 5000)}, 999: {}}},
			func(r Report) string {
				return differ(len(r.Disks), maxDisks, "", "") +
					differ(len(r.Disks[0].Content), maxContent, "", "")
			},
		},
		{
			"many of everything",
			Report{
				NICs: make([]NIC, 5000), PCI: make([]PCIDevice, 5000),
				Memory: Memory{DIMMs: make([]DIMM, 5000)},
			},
			func(r Report) string {
				return differ(len(r.NICs), maxNICs, "", "") + differ(r.size() <= StrangerReport, true, "", "")
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if wrong := c.want(c.in.Bounded(StrangerReport)); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

func differ[A, B comparable](got, want A, alsoGot, alsoWant B) (wrong string) {
	if got != want {
		wrong = fmt.Sprintf("%v, want %v; ", got, want)
	}
	if alsoGot != alsoWant {
		wrong += fmt.Sprintf("%v, want %v; ", alsoGot, alsoWant)
	}
	return wrong
}

// A report counts with the memory that it takes, even if its JSON is short.
func TestReportsAreWeighed(t *testing.T) {
	r := Report{
		Disks:  make([]Disk, 256),
		NICs:   make([]NIC, 100),
		PCI:    make([]PCIDevice, 100),
		Memory: Memory{DIMMs: make([]DIMM, 100)},
	}
	least := 256*unsafe.Sizeof(Disk{}) +
		100*(unsafe.Sizeof(NIC{})+unsafe.Sizeof(PCIDevice{})+unsafe.Sizeof(DIMM{}))
	if got := r.Weight(); got < int(least) || got < r.Size() {
		t.Errorf("Weight() = %d, want at least the %d bytes that it takes", got, least)
	}
	if got := (*Report)(nil).Weight(); got != 0 {
		t.Errorf("no report weighs %d", got)
	}
}

// Bounded does not write into a report, since others hold it.
func TestBoundedCopies(t *testing.T) {
	in, same := large(168, 192, 1000), large(168, 192, 1000)
	in.Disks[0].Serial, same.Disks[0].Serial = "a\nb", "a\nb"
	in.Bounded(StrangerReport)
	if !reflect.DeepEqual(in, same) {
		t.Error("Bounded changed the report that it was called on")
	}
}

// limits looks at every string and every list below v.
func limits(v reflect.Value, path string) (wrong string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return limits(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			wrong += limits(v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice:
		if v.Len() > maxPCI {
			wrong = fmt.Sprintf("%s: %d elements; ", path, v.Len())
		}
		for i := range v.Len() {
			wrong += limits(v.Index(i), path+"[]")
		}
	case reflect.String:
		if s := v.String(); len(s) > MaxLine || !utf8.ValidString(s) ||
			strings.ContainsFunc(s, unicode.IsControl) {
			wrong = fmt.Sprintf("%s: %d bytes, %.40q; ", path, len(s), s)
		}
	}
	return wrong
}

// It visits fields by reflection, so that a later field without a bound fails here.
func TestEveryFieldIsBounded(t *testing.T) {
	var r Report
	fill(reflect.ValueOf(&r).Elem())
	if wrong := limits(reflect.ValueOf(r.Bounded(StrangerReport)), "Report"); wrong != "" {
		t.Error(wrong)
	}
	var res Result
	fill(reflect.ValueOf(&res).Elem())
	res.Report, res.Log, res.BootID = nil, "", "" // bounded by itself; cut when noted; compared and not kept
	if wrong := limits(reflect.ValueOf(res.Bounded()), "Result"); wrong != "" {
		t.Error(wrong)
	}
	b := r.Bounded(StrangerReport)
	// Characters that JSON escapes take six bytes each.
	if b = b.Brief(strings.Repeat("x", 5000)); b.size() > 8<<10 {
		t.Errorf("a brief report has %d bytes", b.size())
	}
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("\x9b\u0085" + strings.Repeat("<", 2000))
	}
}

func FuzzBoundedReport(f *testing.F) {
	for _, r := range []Report{
		{},
		large(4, 4, 4),
		{Problems: []string{"\x1b", strings.Repeat("<", 2000)}, Memory: Memory{Bytes: math.MaxUint64}},
	} {
		raw, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint16(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, times uint16) {
		var r Report
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		for range times % 2000 { // lists longer than the fuzzer's
			r.Disks = append(r.Disks, r.Disks[:min(len(r.Disks), 1)]...)
			r.PCI = append(r.PCI, r.PCI[:min(len(r.PCI), 1)]...)
			r.NICs = append(r.NICs, r.NICs[:min(len(r.NICs), 1)]...)
			r.Problems = append(r.Problems, r.Problems[:min(len(r.Problems), 1)]...)
		}
		out := r.Bounded(StrangerReport)
		if out.size() > StrangerReport || len(out.Problems) > maxProblems {
			t.Fatalf("%d bytes and %d problems", out.size(), len(out.Problems))
		}
		if wrong := limits(reflect.ValueOf(out), "Report"); wrong != "" {
			t.Fatal(wrong)
		}
		again, err := json.Marshal(out.Bounded(StrangerReport))
		once, _ := json.Marshal(out)
		if err != nil || string(once) != string(again) {
			t.Fatalf("bounded twice:\n%s\nonce:\n%s", again, once)
		}
	})
}

// Vendor and device of a PCI function are hexadecimal digits: `why` names functions by them.
func TestPCIIDsAreNumbers(t *testing.T) {
	for said, want := range map[string]string{
		"8086": "8086", "1AF4": "1AF4", "": "", "80865": "", "808": "", "80g6": "", "reboot it": "",
		"\u0668086": "",
	} {
		r := Report{PCI: []PCIDevice{{Vendor: said, Device: said}}}.Bounded(KnownReport)
		if p := r.PCI[0]; p.Vendor != want || p.Device != want {
			t.Errorf("%q is kept as %q:%q, want %q", said, p.Vendor, p.Device, want)
		}
	}
}
