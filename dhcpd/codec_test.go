package dhcpd

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A ROM that reads option 67 to the next NUL finds the name, and nothing of the next option.
func TestTheNameOfABIOSBootFileEnds(t *testing.T) {
	relayed := func(p *dhcpv4.DHCPv4) {
		p.GatewayIPAddr = []byte{10, 77, 0, 9}
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation,
			[]byte{1, 4, 'e', 't', 'h', '1'}))
	}
	name := []byte(testBoot.File)
	for _, packet := range []string{"rom-bios-discover", "rom-bios-no-guid"} {
		for where, change := range map[string]func(*dhcpv4.DHCPv4){
			"here":           func(*dhcpv4.DHCPv4) {},
			"behind a relay": relayed,
		} {
			t.Run(packet+" "+where, func(t *testing.T) {
				p, _, port := golden(t, packet)
				change(p)
				c := clientOf(p, port)
				proxy, err := answer(p, c, testBoot)
				if err != nil {
					t.Fatal(err)
				}
				server, why := newDesk(t, testPlan()).hear(p, false)
				if server == nil {
					t.Fatal(why)
				}
				for mode, r := range map[string]*dhcpv4.DHCPv4{"proxy": proxy, "server": server} {
					raw := encode(r, c)
					want := append(append([]byte{67, byte(len(name))}, name...), 0)
					if !bytes.Contains(raw[optionsAt:], want) {
						t.Errorf("%s: no %q in %x", mode, want, raw[optionsAt:])
					}
					back, err := dhcpv4.FromBytes(raw)
					if err != nil || back.BootFileNameOption() != testBoot.File || len(raw) < minBOOTP {
						t.Errorf("%s: read back: %v, %v, %d bytes", mode, back, err, len(raw))
					}
				}
			})
		}
	}
}

func TestParse(t *testing.T) {
	_, raw, _ := golden(t, "rom-bios-discover")
	end := len(raw) - 1
	for name, c := range map[string]struct {
		raw []byte
		odd string
		err bool
	}{
		"as it should be":        {raw, "", false},
		"padding behind the end": {append(bytes.Clone(raw), 0, 0, 0), "", false},
		"rubbish behind the end": {append(bytes.Clone(raw), 61, 200), "", false},
		"no end":                 {raw[:end], "no end option", false},
		"padding and no end":     {append(bytes.Clone(raw[:end]), 0, 0), "no end option", false},
		"an option without a length": {
			append(bytes.Clone(raw[:end]), 12), "option 12 goes on behind the packet's end", false,
		},
		"an option without its value": {
			append(bytes.Clone(raw[:end]), 12, 3), "option 12 goes on behind the packet's end", false,
		},
		"an option that is cut": {
			append(bytes.Clone(raw[:end]), 12, 3, 'm', '1'), "option 12 goes on behind the packet's end",
			false,
		},
		"an option that ends with it": {
			append(bytes.Clone(raw[:end]), 12, 2, 'm', '1'), "no end option", false,
		},
		"nothing behind the cookie": {raw[:optionsAt], "no options", false},
		"no cookie":                 {raw[:optionsAt-4], "", true},
		"BOOTP without a magic cookie": {
			append(bytes.Clone(raw[:optionsAt-4]), make([]byte, 64)...), "no end option", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(c.raw)
			p, odd, err := parse(c.raw)
			if (err != nil) != c.err || odd != c.odd {
				t.Fatalf("parse = %q, %v, want %q, an error: %v", odd, err, c.odd, c.err)
			}
			if !bytes.Equal(before, c.raw) {
				t.Error("parse changed its packet")
			}
			if err == nil && len(c.raw) > optionsAt && clientOf(p, dhcpPort).Class != ClassBIOS {
				t.Errorf("it is taken for %s, want %s", clientOf(p, dhcpPort).Class, ClassBIOS)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range goldenNames(f) {
		_, raw, _ := golden(f, name)
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, odd, err := parse(raw)
		strict, refused := dhcpv4.FromBytes(raw)
		switch {
		case refused == nil && (err != nil || odd != "" && len(raw) > optionsAt):
			t.Errorf("parse = %q, %v, where the codec finds nothing wrong", odd, err)
		case refused == nil && !bytes.Equal(p.ToBytes(), strict.ToBytes()):
			t.Errorf("parse reads\n%x, the codec\n%x", p.ToBytes(), strict.ToBytes())
		case err == nil && refused != nil && odd == "":
			t.Error("a packet that the codec refuses is not called odd")
		}
	})
}

// A relay that takes answers at another port than 67 says so: RFC 8357.
func TestRelaySourcePort(t *testing.T) {
	from := netip.MustParseAddrPort("10.77.0.9:6700")
	for name, c := range map[string]struct {
		suboptions []byte
		want       string
	}{
		"it says so":      {[]byte{1, 1, 7, 19, 0}, "10.77.0.9:6700"},
		"it does not":     {[]byte{1, 1, 7}, "10.77.0.9:67"},
		"no relay option": {nil, "10.77.0.9:67"},
	} {
		t.Run(name, func(t *testing.T) {
			p := message(dhcpv4.MessageTypeDiscover, alice, through("10.77.0.9"))
			if c.suboptions != nil {
				p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, c.suboptions))
			}
			cl := clientOf(p, dhcpPort)
			r, why := newDesk(t, testPlan()).hear(p, false)
			if r == nil {
				t.Fatal(why)
			}
			if got := leaseDestination(cl, p, r, from).String(); got != c.want {
				t.Errorf("in server mode the answer goes to %s, want %s", got, c.want)
			}
			if got := destination(cl, from).String(); got != c.want {
				t.Errorf("in proxy mode the answer goes to %s, want %s", got, c.want)
			}
			if got := r.GetOneOption(dhcpv4.OptionRelayAgentInformation); !bytes.Equal(got, c.suboptions) {
				t.Errorf("option 82 comes back as %x, want %x", got, c.suboptions)
			}
		})
	}
}

// In server mode a machine without a boot program still gets its address. The reason names its architecture.
func TestAMachineWithoutAProgram(t *testing.T) {
	p, _, port := golden(t, "uefi-riscv64-discover")
	d := newDesk(t, testPlan())
	c := clientOf(p, port)
	if !c.NoProgram || unwanted(p, c).String() != "no boot program for RISC-V UEFI" {
		t.Errorf("a proxy says %q to it", unwanted(p, c))
	}
	r, err := d.build(context.Background(), p, request{Client: c, server: ourAddr},
		dhcpv4.MessageTypeOffer, ip("10.77.0.100"), 0, func(context.Context, Client) (Boot, bool) {
			t.Error("it was asked what to boot")
			return testBoot, true
		})
	if err != nil || r.BootFileNameOption() != "" {
		t.Errorf("it is offered %v, %v, want an address and no file", r, err)
	}
}
