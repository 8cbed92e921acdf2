package dhcpd

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var update = flag.Bool("update", false,
	"write what is answered to testdata/*.txt; read the diff before committing it")

var ourAddr = netip.MustParseAddr("10.77.0.1")

// testBoot is a Decider's answer with both a file and a URL. Which of them is used depends on the client.
var testBoot = Boot{File: "pxectl/boot.nbp", URL: "http://10.77.0.1:8080/boot.ipxe"}

// golden reads a packet of testdata: hex, with "# port N" among its comments.
func golden(t testing.TB, name string) (p *dhcpv4.DHCPv4, raw []byte, port int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
		_, _ = fmt.Sscanf(line, "# port %d", &port)
	}
	if raw, err = hex.DecodeString(digits.String()); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if p, _, err = parse(raw); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p, raw, port
}

func goldenNames(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/*.hex: %v, %d files", err, len(files))
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".hex")
	}
	return files
}

// programs says whether there is a boot program for an architecture, as ipxe.NBPFor does.
func programs(a Arch) bool {
	return slices.Contains([]Arch{
		ArchBIOS, ArchUEFI64, ArchUEFIBC, ArchARM64, ArchHTTP64, ArchHTTPBC,
		ArchHTTPARM64, ArchHTTPBIOS, ArchUBoot64,
	}, a)
}

func clientOf(p *dhcpv4.DHCPv4, port int) Client {
	c := classify(p, port, programs)
	c.Interface, c.Server = "prov", ourAddr
	return c
}

// For every packet of testdata: how we classify it and what we answer.
func TestGoldenPackets(t *testing.T) {
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			p, raw, port := golden(t, name)
			c := clientOf(p, port)
			shown, err := json.MarshalIndent(struct {
				Client
				MAC, Type, XID string
			}{c, c.MAC.String(), c.Type.String(), c.XID.String()}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			out := fmt.Sprintf("client %s\nwants URL: %v\n\n%s\n", shown, c.WantsURL(), p.Summary())
			if why := unwanted(p, c); why.Code != "" {
				out += "no answer: " + why.String() + "\n"
			} else {
				r, err := answer(p, c, testBoot)
				if err != nil {
					t.Fatalf("answer: %v", err)
				}
				out += fmt.Sprintf("answer to %v, %d bytes\n%s",
					destination(c, netip.AddrPortFrom(c.Addr, uint16(port))), len(encode(r, c)), r.Summary())
				checkAnswer(t, p, c, r)
			}
			compare(t, filepath.Join("testdata", name+".txt"), out)
			again, err := dhcpv4.FromBytes(p.ToBytes())
			if err != nil || !bytes.Equal(again.ToBytes(), p.ToBytes()) {
				t.Errorf("parse, build, parse: %v, differs from %x", err, raw)
			}
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run the test with -update, and read what it writes)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update after reading):\n%s", file, diff)
	}
}

// checkAnswer checks what must hold for every answer in proxy mode.
func checkAnswer(t testing.TB, p *dhcpv4.DHCPv4, c Client, r *dhcpv4.DHCPv4) {
	t.Helper()
	wire := encode(r, c)
	back, err := dhcpv4.FromBytes(wire)
	if err != nil {
		t.Fatalf("the answer does not parse: %v", err)
	}
	if diff := cmp.Diff(r.Options, back.Options); diff != "" {
		t.Errorf("options change on the wire (-built +parsed):\n%s", diff)
	}
	if n := len(wire); n < 300 || n > limit(p) {
		t.Errorf("answer of %d bytes, want 300 to %d", n, limit(p))
	}
	if a := addr(back.YourIPAddr); a.IsValid() {
		t.Errorf("yiaddr = %v: we never give addresses", a)
	}
	for _, lease := range []dhcpv4.OptionCode{
		dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionSubnetMask,
		dhcpv4.OptionRouter,
	} {
		if back.Options.Has(lease) {
			t.Errorf("the answer has %v: we never give addresses", lease)
		}
	}
	if addr(back.ServerIPAddr) != c.Server || addr(back.ServerIdentifier()) != c.Server {
		t.Errorf("siaddr %v, option 54 %v, want %v for both", back.ServerIPAddr, back.ServerIdentifier(),
			c.Server)
	}
	if back.TransactionID != p.TransactionID || !bytes.Equal(back.ClientHWAddr, p.ClientHWAddr) {
		t.Errorf("xid %v, chaddr %v, want %v, %v", back.TransactionID, back.ClientHWAddr, p.TransactionID,
			p.ClientHWAddr)
	}
	for _, code := range []dhcpv4.OptionCode{optGUID, dhcpv4.OptionRelayAgentInformation} {
		if !bytes.Equal(back.GetOneOption(code), p.GetOneOption(code)) {
			t.Errorf("option %v = %x, want it echoed: %x", code, back.GetOneOption(code),
				p.GetOneOption(code))
		}
	}
	if back.BootFileName == "" && back.BootFileNameOption() == "" {
		t.Error("no boot file in the answer")
	}
}

func TestFeatures(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  []byte
		want Features
	}{
		{"none", nil, Features{}},
		{
			"http, bzimage, version",
			[]byte{19, 1, 1, 24, 1, 1, 235, 3, 1, 21, 1},
			Features{HTTP: true, BzImage: true, Version: "1.21.1"},
		},
		{"a feature switched off", []byte{19, 1, 0, 36, 1, 1}, Features{EFI: true}},
		{"bus id before", []byte{177, 5, 1, 0x10, 0xec, 0x81, 0x39, 19, 1, 1}, Features{HTTP: true}},
		{"padding and end", []byte{0, 0, 19, 1, 1, 255, 36, 1, 1}, Features{HTTP: true}},
		{"cut short", []byte{19, 1, 1, 36, 9, 1}, Features{HTTP: true}},
		{"only a code", []byte{19}, Features{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseFeatures(c.raw); got != c.want {
				t.Errorf("parseFeatures(%x) = %+v, want %+v", c.raw, got, c.want)
			}
		})
	}
}

func TestBootFileAndURL(t *testing.T) {
	ipxe := Client{Class: ClassIPXE, Server: ourAddr, IPXE: Features{HTTP: true, EFI: true}}
	weak := Client{Class: ClassIPXE, Server: ourAddr, IPXE: Features{HTTP: true}}
	long := "http://10.77.0.1/" + strings.Repeat("x", 300)
	for _, c := range []struct {
		name      string
		c         Client
		b         Boot
		want, err string
	}{
		{"BIOS gets the name", Client{Class: ClassBIOS}, testBoot, "pxectl/boot.nbp", ""},
		{"UEFI gets the name", Client{Class: ClassUEFI}, testBoot, "pxectl/boot.nbp", ""},
		{
			"UEFI without a name",
			Client{Class: ClassUEFI},
			Boot{URL: testBoot.URL},
			"",
			"needs the name of a boot file",
		},
		{
			"UEFI with too long a name",
			Client{Class: ClassUEFI},
			Boot{File: strings.Repeat("x", 128)},
			"",
			"at most 127",
		},
		{"iPXE gets the script", ipxe, testBoot, testBoot.URL, ""},
		{
			"iPXE without a script gets a program", ipxe,
			Boot{File: "ipxe.efi"},
			"tftp://10.77.0.1/ipxe.efi",
			"",
		},
		{
			"iPXE that cannot boot Linux gets a program", weak, testBoot, "tftp://10.77.0.1/pxectl/boot.nbp",
			"",
		},
		{"our iPXE gets the script", Client{Class: ClassOwnIPXE}, testBoot, testBoot.URL, ""},
		{"HTTP boot gets the URL", Client{Class: ClassHTTP}, testBoot, testBoot.URL, ""},
		{"HTTP boot without a URL", Client{Class: ClassHTTP}, Boot{File: "a"}, "", "needs a URL"},
		{"a name in the URL", ipxe, Boot{URL: "http://pxe.example/boot"}, "", "must be an IP address"},
		{"a long URL", ipxe, Boot{URL: long}, "", "at most 255"},
		{"no URL at all", ipxe, Boot{URL: "boot.ipxe"}, "", "must be an IP address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := bootFile(c.c, c.b)
			switch {
			case c.err == "" && (err != nil || got != c.want):
				t.Errorf("bootFile(%+v) = %q, %v, want %q", c.b, got, err, c.want)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("bootFile(%+v): error %v, want one with %q", c.b, err, c.err)
			}
		})
	}
}

func TestAnswerFits(t *testing.T) {
	url := func(n int) string { return "http://10.77.0.1/" + strings.Repeat("u", n-len("http://10.77.0.1/")) }
	base, _, port := golden(t, "ipxe-1.21-discover")
	for _, c := range []struct {
		name    string
		size57  int // 0: the client does not tell
		relay   int // bytes of option 82
		url     string
		want    []dhcpv4.OptionCode // present
		without []dhcpv4.OptionCode
		file    bool
		err     string
	}{
		{"a short URL is said twice", 0, 0, url(100), codes(61, 66, 67), nil, true, ""},
		{"a long URL only in option 67", 0, 0, url(200), codes(66, 67), nil, false, ""},
		{"a large relay option: the copies go", 0, 200, url(120), codes(82), codes(61, 66, 67), true, ""},
		{"the same for a client that takes more", 1500, 200, url(120), codes(61, 66, 67, 82), nil, true, ""},
		{"a size below the minimum is not believed", 100, 0, url(100), codes(61, 66, 67), nil, true, ""},
		{"the short URL takes its place", 0, 250, url(250), codes(82), codes(61, 66, 67), true, ""},
		{"nothing left to leave out", 0, 400, url(250), nil, nil, false, "option 82 has 400 of them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := dhcpv4.FromBytes(base.ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			p.Options.Del(dhcpv4.OptionMaximumDHCPMessageSize)
			if c.size57 > 0 {
				p.UpdateOption(dhcpv4.OptMaxMessageSize(uint16(c.size57)))
			}
			p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier,
				append([]byte{0xff}, make([]byte, 18)...)))
			if c.relay > 0 {
				p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation,
					append([]byte{1, byte(min(c.relay, 255) - 2)}, make([]byte, c.relay-2)...)))
			}
			cl := clientOf(p, port)
			r, err := answer(p, cl, Boot{URL: c.url, Short: "http://10.77.0.1:8080/autoexec.ipxe"})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("answer: error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkAnswer(t, p, cl, r)
			for _, code := range c.want {
				if !r.Options.Has(code) {
					t.Errorf("no option %d in the answer", code.Code())
				}
			}
			for _, code := range c.without {
				if r.Options.Has(code) {
					t.Errorf("option %d in the answer, want it left out", code.Code())
				}
			}
			if got := r.BootFileName != ""; got != c.file {
				t.Errorf("file field = %q, want it filled: %v", r.BootFileName, c.file)
			}
		})
	}
}

func codes(n ...uint8) (list []dhcpv4.OptionCode) {
	for _, c := range n {
		list = append(list, dhcpv4.GenericOptionCode(c))
	}
	return list
}
