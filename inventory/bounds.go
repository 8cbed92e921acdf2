package inventory

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// Anybody may send as an agent, so the appliance bounds an agent's words before it keeps them. The counts are
// those of the largest servers of docs/security.md and some room. A string that is too long is cut, a list
// that is too long loses its end, and Report.Problems says so: a machine with an odd serial number must be
// deployable, too.
const (
	// StrangerReport and KnownReport bound the JSON of a report before and after approval.
	StrangerReport = 64 << 10
	KnownReport    = 256 << 10

	MaxWord = 128 // bytes of a name, a number, a version
	MaxLine = 512 // bytes of a sentence

	maxDisks    = 256
	maxNICs     = 128
	maxPCI      = 1024
	maxDIMMs    = 256
	maxContent  = 16 // signatures of one disk
	maxProblems = 32
	maxListed   = 64 // warnings, boot entries, ranges, methods of a result
)

// Text turns anybody's text into a line of n bytes at most, without control characters and half characters.
func Text(s string, n int) string {
	const more = "…"
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*n)], "?"))
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len(more)], "") + more
}

func words(n int, all ...*string) {
	for _, s := range all {
		*s = Text(*s, n)
	}
}

var systemUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Bounded returns the report within its bounds: each string and each list, addresses and UUID parsed, and the
// JSON at most limit bytes long (32 KiB or more). Problems says what was left out. The agent bounds what it
// sends, and the appliance what it gets.
func (r Report) Bounded(limit int) Report {
	var cut []string
	r.Disks = first(r.Disks, maxDisks, "disks", &cut)
	r.NICs = first(r.NICs, maxNICs, "network cards", &cut)
	r.PCI = first(r.PCI, maxPCI, "PCI functions", &cut)
	r.Memory.DIMMs = first(r.Memory.DIMMs, maxDIMMs, "DIMMs", &cut)
	r.Problems = first(r.Problems, maxProblems, "problems", &cut)

	words(MaxWord, &r.AgentVersion, &r.Kernel, &r.Arch, &r.Firmware, &r.CPU.Model)
	s := &r.System
	words(MaxWord, &s.Manufacturer, &s.Product, &s.Serial, &s.SKU, &s.Asset, &s.Board, &s.BIOSVendor,
		&s.BIOSVersion, &s.BIOSDate)
	if s.UUID = strings.ToLower(s.UUID); !systemUUID.MatchString(s.UUID) {
		s.UUID = ""
	}
	r.BootMAC, _ = ParseMAC(string(r.BootMAC))
	for i := range r.Disks {
		d := &r.Disks[i]
		words(MaxWord, &d.Name, &d.ByPath, &d.Transport, &d.Vendor, &d.Model, &d.Serial, &d.WWN, &d.HCTL)
		d.Content = lines(d.Content, maxContent, MaxWord)
	}
	for i := range r.NICs {
		n := &r.NICs[i]
		n.MAC, _ = ParseMAC(string(n.MAC))
		words(MaxWord, &n.Name, &n.Driver, &n.Path)
	}
	for i := range r.PCI {
		p := &r.PCI[i]
		p.Vendor, p.Device = hexOf(p.Vendor, 4), hexOf(p.Device, 4)
		words(MaxWord, &p.Address, &p.Class, &p.Name, &p.Driver, &p.Modalias)
	}
	for i := range r.Memory.DIMMs {
		d := &r.Memory.DIMMs[i]
		words(MaxWord, &d.Slot, &d.Type, &d.Serial)
	}
	if r.BMC != nil {
		b := *r.BMC
		b.MAC, _ = ParseMAC(string(b.MAC))
		words(MaxWord, &b.Address, &b.Netmask, &b.Gateway, &b.Firmware)
		r.BMC = &b
	}
	r.Problems = lines(append(cut, r.Problems...), maxProblems, MaxLine)
	return r.fit(limit)
}

// fit leaves out what a deployment needs least until the JSON of the report is at most limit bytes long.
func (r Report) fit(limit int) Report {
	// Class 06 is bridges.
	driven := func(p PCIDevice) bool { return p.Driver != "" || strings.HasPrefix(p.Class, "06") }
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"", func() {}},
		{"module aliases of PCI functions that have a driver", func() {
			for i := range r.PCI {
				if driven(r.PCI[i]) {
					r.PCI[i].Modalias = ""
				}
			}
		}},
		{"PCI functions that have a driver, and bridges", func() {
			kept := r.PCI[:0]
			for _, p := range r.PCI {
				if !driven(p) {
					kept = append(kept, p)
				}
			}
			r.PCI = kept
		}},
		{"DIMMs", func() { r.Memory.DIMMs = nil }},
		{"all PCI functions", func() { r.PCI = nil }},
		{"some problems", func() { r.Problems = lines(r.Problems, maxProblems/2, MaxLine/4) }},
		{"network cards beyond 16", func() { r.NICs = r.NICs[:min(len(r.NICs), 16)] }},
		{"disks beyond 64", func() { r.Disks = r.Disks[:min(len(r.Disks), 64)] }},
		{"disks beyond 16", func() { r.Disks = r.Disks[:min(len(r.Disks), 16)] }},
		{"disks and network cards", func() { r.Disks, r.NICs = nil, nil }},
	} {
		step.do()
		if step.what != "" {
			note := fmt.Sprintf("the report is longer than %d KiB: left out: %s", limit>>10, step.what)
			r.Problems = lines(append([]string{note}, r.Problems...), maxProblems, MaxLine)
		}
		if r.size() <= limit {
			break
		}
	}
	return r
}

// size is the length of the report's JSON.
func (r Report) size() int {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err) // cannot happen: it has only strings and numbers
	}
	return len(raw)
}

// Size is the size of the report in the store.
func (r *Report) Size() int {
	if r == nil {
		return 0
	}
	return r.size()
}

// Weight estimates the memory that the report takes, in bytes: the JSON of an empty disk is much shorter.
func (r *Report) Weight() int {
	if r == nil {
		return 0
	}
	const element = 256 // bytes of the largest, a disk, without its texts
	return r.size() + element*(len(r.Disks)+len(r.NICs)+len(r.PCI)+len(r.Memory.DIMMs))
}

// Brief is the machine's identity and size, and the reason why the rest is not kept. It takes about 1 KiB.
func (r Report) Brief(why string) Report {
	const word = MaxWord / 2
	b := Report{
		Arch: r.Arch, Firmware: r.Firmware, BootMAC: r.BootMAC, CPU: r.CPU,
		Memory: Memory{Bytes: r.Memory.Bytes}, BMC: r.BMC,
		System: System{
			Manufacturer: r.System.Manufacturer,
			Product:      r.System.Product,
			Serial:       r.System.Serial,
			UUID:         r.System.UUID,
		},
		Problems: []string{Text(why, MaxLine)},
	}
	words(word, &b.Arch, &b.Firmware, &b.CPU.Model, &b.System.Manufacturer, &b.System.Product,
		&b.System.Serial)
	return b
}

// Hardware is the summary of a report, for a list.
type Hardware struct {
	Threads   int    `json:"threads"`
	Memory    uint64 `json:"memory_bytes"`
	Disks     int    `json:"disks"`
	DiskBytes uint64 `json:"disk_bytes"`
}

// Hardware sums the report up; nil for a nil report.
func (r *Report) Hardware() *Hardware {
	if r == nil {
		return nil
	}
	h := &Hardware{Threads: r.CPU.Threads, Memory: r.Memory.Bytes, Disks: len(r.Disks)}
	for _, d := range r.Disks {
		h.DiskBytes += d.Bytes
	}
	return h
}

// Bounded returns the result within its bounds, except for its report.
func (r Result) Bounded() Result {
	words(MaxLine, &r.Error, &r.Hint)
	if f := r.Finished; f != nil {
		c := *f
		words(MaxLine, &c.BootEntry, &c.Fallback)
		c.Removed, c.Warnings = lines(c.Removed, maxListed, MaxWord), lines(c.Warnings, maxListed, MaxLine)
		c.Ranges = append([]Range(nil), c.Ranges[:min(len(c.Ranges), maxListed)]...)
		for i := range c.Ranges {
			c.Ranges[i].Name = Text(c.Ranges[i].Name, MaxWord)
		}
		r.Finished = &c
	}
	if e := r.Erased; e != nil {
		c := *e
		words(MaxLine, &c.Method, &c.Proof)
		c.Passed, c.Removed = lines(c.Passed, maxListed, MaxLine), lines(c.Removed, maxListed, MaxWord)
		r.Erased = &c
	}
	if w := r.Written; w != nil {
		c := *w
		c.Mode = Text(c.Mode, MaxWord)
		r.Written = &c
	}
	if d := r.Disk; d != nil {
		c := *d
		words(MaxWord, &c.Name, &c.Serial, &c.WWN, &c.ByPath)
		r.Disk = &c
	}
	return r
}

// first copies the beginning of a list and notes the cut.
func first[T any](all []T, n int, what string, cut *[]string) []T {
	if len(all) > n {
		count := strconv.Itoa(len(all))
		if len(all) == mostListed { // Shortened may have left out more
			count += " or more"
		}
		*cut = append(*cut, fmt.Sprintf("%s %s are reported, and the first %d kept", count, what, n))
		all = all[:n]
	}
	return append([]T(nil), all...)
}

// lines copies the beginning of a list of texts, each within its bound.
func lines(all []string, n, each int) []string {
	if all == nil {
		return nil
	}
	out := make([]string, 0, min(len(all), n))
	for _, s := range all[:min(len(all), n)] {
		out = append(out, Text(s, each))
	}
	return out
}

// hexOf is s if it is that many hexadecimal digits, else "".
func hexOf(s string, digits int) string {
	if len(s) != digits || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return ""
	}
	return s
}
