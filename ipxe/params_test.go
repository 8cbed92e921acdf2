package ipxe

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var server = mustAddrPort("10.77.0.1:8080")

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// Queries of QEMU's option ROM (iPXE of January 2019) and Debian's snponly.efi.
const (
	fromROM = "mac=52-54-00-aa-00-01&uuid=a1234567-89ab-cdef-a123-456789abcd01&serial=S-1&asset=" +
		"&manufacturer=QEMU&product=Standard%20PC%20(i440FX%20+%20PIIX,%201996)&arch=i386&platform=pcbios&busid=01:1a:f4:10:00"
	fromEFI = "mac=52-54-00-aa-00-02&uuid=A1234567-89AB-CDEF-A123-456789ABCD02&serial=&asset=" +
		"&manufacturer=QEMU&product=Standard%20PC%20%28Q35%20%2B%20ICH9%2C%202009%29&arch=x86_64&platform=efi&busid=01:1a:f4:10:00"
)

func TestParseParams(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		want        Params
	}{
		{"BIOS option ROM", fromROM, Params{
			MAC: "52:54:00:aa:00:01", UUID: "a1234567-89ab-cdef-a123-456789abcd01", Serial: "S-1",
			Manufacturer: "QEMU", Product: "Standard PC (i440FX + PIIX, 1996)", Arch: "i386",
			Platform: "pcbios", BusID: "01:1a:f4:10:00",
		}},
		{"EFI", fromEFI, Params{
			MAC: "52:54:00:aa:00:02", UUID: "a1234567-89ab-cdef-a123-456789abcd02",
			Manufacturer: "QEMU", Product: "Standard PC (Q35 + ICH9, 2009)", Arch: "x86_64", Platform: "efi",
			BusID: "01:1a:f4:10:00",
		}},
		{"colons and capitals", "mac=52:54:00:AA:00:01", Params{MAC: "52:54:00:aa:00:01"}},
		{
			"a semicolon in a name", "mac=52-54-00-aa-00-01&product=A;B",
			Params{MAC: "52:54:00:aa:00:01", Product: "A;B"},
		},
		{
			"a second mac is ignored", "mac=52-54-00-aa-00-01&mac=52-54-00-aa-00-02",
			Params{MAC: "52:54:00:aa:00:01"},
		},
		{
			"rubbish in SMBIOS text is cleaned", "mac=52-54-00-aa-00-01&serial=%0aS1%00%ff%1b[2J%20",
			Params{MAC: "52:54:00:aa:00:01", Serial: "S1[2J"},
		},
		{
			"long text is cut", "mac=52-54-00-aa-00-01&asset=" + strings.Repeat("A", 5000),
			Params{MAC: "52:54:00:aa:00:01", Asset: strings.Repeat("A", maxText)},
		},
	} {
		got, err := ParseParams(parseQuery(tt.query))
		if err != nil {
			t.Errorf("%s: ParseParams: %v", tt.name, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: ParseParams (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestParseParamsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, query, want string }{
		{"no mac", "", `mac ""`},
		{"unexpanded mac", "mac=${netX/mac:hexhyp}", "six octets"},
		{"short mac", "mac=52-54-00", "six octets"},
		{"multicast mac", "mac=01-00-5e-00-00-01", "not the address of a NIC"},
		{"zero mac", "mac=00-00-00-00-00-00", "not the address of a NIC"},
		{"newline in mac", "mac=52-54-00-aa-00-01%0areboot", `\nreb`},
		{"uuid", "mac=52-54-00-aa-00-01&uuid=1", "8-4-4-4-12"},
		{"arch", "mac=52-54-00-aa-00-01&arch=x86_64%20%7c%7c", "arch"},
		{"platform", "mac=52-54-00-aa-00-01&platform=${x}", "platform"},
		{"busid", "mac=52-54-00-aa-00-01&busid=zz", "busid"},
	} {
		if _, err := ParseParams(parseQuery(tt.query)); err == nil ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: ParseParams = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// Whatever a client sends, it adds no line to any kind of script.
func FuzzParams(f *testing.F) {
	f.Add(fromROM)
	f.Add(fromEFI)
	f.Add("mac=52-54-00-aa-00-01&manufacturer=%0a${x}%20%7c%7c%20reboot&arch=arm64")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := ParseParams(parseQuery(raw))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error of more than one line: %q", err)
			}
			return
		}
		for _, s := range []string{p.Serial, p.Asset, p.Manufacturer, p.Product} {
			if len(s) > maxText || strings.ContainsAny(s, "\n\r\x00\x1b") {
				t.Errorf("text not cleaned: %q", s)
			}
		}
		boot := Boot{
			Action: Agent, Reason: p.Manufacturer + p.Serial, Kernel: "http://h/k", Initrd: "http://h/i",
			Args: []string{"a=b"},
		}
		got, err := Script(server, p, boot)
		if err != nil {
			t.Fatalf("Script: %v", err)
		}
		boot.Reason = "x"
		want, _ := Script(server, Params{MAC: p.MAC, Arch: p.Arch}, boot)
		if consoleText(p.Manufacturer+p.Serial) != "" &&
			strings.Count(string(got), "\n") != strings.Count(string(want), "\n") {
			t.Errorf("the script changed its shape:\n%s", got)
		}
		for line := range strings.Lines(string(got)) {
			if strings.HasPrefix(line, "echo ") && strings.ContainsAny(line, "$|&;\\#") {
				t.Errorf("script text from outside: %q", line)
			}
		}
	})
}
