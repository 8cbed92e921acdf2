package dhcpd

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// inIP puts a message into the IP packet that a DHCP server sends to clients.
func inIP(src netip.Addr, message []byte) []byte {
	p := make([]byte, 28, 28+len(message))
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(message)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(p[20:], dhcpPort)
	binary.BigEndian.PutUint16(p[22:], clientPort)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(message)))
	return append(p, message...)
}

var otherAddr = netip.MustParseAddr("10.77.0.2")

// reply is another server's answer to a packet of testdata.
func reply(t testing.TB, modifiers ...dhcpv4.Modifier) []byte {
	t.Helper()
	ask, _, _ := golden(t, "edk2-x64-discover")
	r, err := dhcpv4.NewReplyFromRequest(ask, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
		dhcpv4.WithYourIP(netip.MustParseAddr("10.77.0.120").AsSlice()),
	}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return inIP(otherAddr, r.ToBytes())
}

func TestParseOverheard(t *testing.T) {
	for name, c := range map[string]struct {
		raw   []byte
		text  string
		boots bool
	}{
		"a plain offer": {
			reply(t), "OFFER from another server, 10.77.0.2: the address 10.77.0.120", false,
		},
		"with a server id": {
			reply(t, dhcpv4.WithServerIP(ourAddr.AsSlice()),
				dhcpv4.WithOption(dhcpv4.OptServerIdentifier([]byte{10, 77, 0, 3}))),
			"OFFER from another server, 10.77.0.3: the address 10.77.0.120", false,
		},
		"a refusal": {
			reply(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithYourIP(nil)),
			"NAK from another server, 10.77.0.2", false,
		},
		"a file in option": {
			reply(t, dhcpv4.WithOption(dhcpv4.OptBootFileName("pxelinux.0"))),
			`OFFER from another server, 10.77.0.2: the address 10.77.0.120, and to boot "pxelinux.0"`, true,
		},
		"a file in BOOTP": {
			reply(t, func(d *dhcpv4.DHCPv4) {
				d.BootFileName, d.ServerIPAddr = "x\x1b[2J", []byte{10, 77, 0, 9}
			}),
			`OFFER from another server, 10.77.0.2: the address 10.77.0.120, ` +
				`and to boot "x\x1b[2J" from 10.77.0.9`,
			true,
		},
		"a URL": {
			reply(t, dhcpv4.WithOption(
				dhcpv4.OptBootFileName("http://10.77.0.1:8080/boot.ipxe?mac=${netX/mac}"))),
			`OFFER from another server, 10.77.0.2: the address 10.77.0.120, ` +
				`and to boot "http://10.77.0.1:8080/boot.ipxe"`,
			true,
		},
		"a proxy that asks": {
			reply(t, dhcpv4.WithYourIP(nil), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))),
			`OFFER from another server, 10.77.0.2, and as "PXEClient"`, true,
		},
		"padded": {
			append(reply(t), make([]byte, 40)...),
			"OFFER from another server, 10.77.0.2: the address 10.77.0.120", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOverheard(c.raw)
			if err != nil || o.String() != c.text || o.Boots() != c.boots {
				t.Errorf("parseOverheard() = %q, boots %v, %v, want %q, %v", o.String(), o.Boots(), err,
					c.text, c.boots)
			}
		})
	}
	_, ask, _ := golden(t, "edk2-x64-discover")
	for name, raw := range map[string][]byte{
		"nothing": nil, "a request": inIP(otherAddr, ask), "cut": reply(t)[:60],
		"IPv6":                      append([]byte{0x60}, make([]byte, 60)...),
		"a header that is too long": append([]byte{0x4f}, make([]byte, 40)...),
	} {
		if o, err := parseOverheard(raw); err == nil {
			t.Errorf("%s: parseOverheard() = %+v, want an error", name, o)
		}
	}
}

// udpPayload reads what datagram builds, but for the ports.
func TestDatagram(t *testing.T) {
	p := datagram([]byte("message"))
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	if sum>>16+sum&0xffff != 0xffff {
		t.Errorf("the header's checksum is wrong: %x", p[:20])
	}
	binary.BigEndian.PutUint16(p[22:], clientPort)
	if got, src, err := udpPayload(p); string(got) != "message" || !src.IsUnspecified() || err != nil {
		t.Errorf("udpPayload(datagram()) = %q from %v, %v", got, src, err)
	}
}

func FuzzParseOverheard(f *testing.F) {
	f.Add(reply(f))
	f.Add(reply(f, dhcpv4.WithOption(dhcpv4.OptBootFileName("pxelinux.0"))))
	for _, name := range goldenNames(f) {
		_, raw, _ := golden(f, name)
		f.Add(inIP(otherAddr, raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := parseOverheard(raw)
		if err == nil && (o.String() == "" || !o.Server.Is4() || strings.ContainsAny(o.String(), "\n\x1b")) {
			t.Errorf("parseOverheard(%x) = %+v, want a server and one line for a terminal", raw, o)
		}
	})
}

// The listener hears another DHCP server's offer with its boot file. It does not hear our own answers or
// clients' packets. It goes on after its interface was down.
func TestOverhearing(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	testnet.Bridge(t, "10.77.0.1/24")
	lan := testnet.NewHost(t, "lan", "10.77.0.2/24", "")
	t.Cleanup(func() { lan.Run(t, "ip", "link", "del", "eth0") })
	start(t, lan.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
		"--no-ping", "--dhcp-range=10.77.0.100,10.77.0.150,10m", "--dhcp-authoritative", "--user=root",
		"--dhcp-boot=pxelinux.0,,10.77.0.9",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases")), "DHCP, IP range")
	heard := make(chan Overheard, 100)
	ear, err := Overhear([]string{"br0"}, func(o Overheard) { heard <- o }, nil)
	if err != nil {
		t.Fatal(err)
	}
	us, err := Listen(Config{Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Decide: boots})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- ear.Run(ctx) }()
	go func() { done <- us.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run() = %v, want nil after the context ended", err)
				}
			case <-time.After(patience):
				t.Fatal("Run did not end with its context")
			}
		}
	}()
	client := testnet.NewHost(t, "client", "10.77.0.60/24", "52:54:00:77:00:02")
	client.Run(t, "ip", "route", "add", "default", "dev", "eth0")
	// ask asks until we answer, again after the given time, as boot clients do.
	ask := func(again time.Duration) {
		t.Helper()
		var heard []string
		for end := time.Now().Add(patience); !fromUs(heard); {
			if time.Now().After(end) {
				t.Fatalf("the client heard\n%q\nwant us among them", heard)
			}
			late := time.Now().Add(again)
			heard = play(t, client, "edk2-x64-discover", ":68", "255.255.255.255:67",
				func(heard []string) bool {
					return fromUs(heard) || time.Now().After(late)
				})
		}
	}
	want := `OFFER from another server, 10.77.0.2: the address`
	await := func() {
		t.Helper()
		select {
		case o := <-heard:
			if !strings.HasPrefix(o.String(), want) ||
				!strings.HasSuffix(o.String(), `, and to boot "pxelinux.0" from 10.77.0.9`) || !o.Boots() ||
				o.Interface != "br0" {
				t.Errorf("overheard %+v, want %q with its boot file", o, want)
			}
		case <-time.After(patience):
			t.Error("the other server's offer was not overheard")
		}
	}
	ask(patience)
	await()
	select {
	case o := <-heard:
		t.Errorf("overheard %+v, want nothing more", o)
	default:
	}
	offers, err := Ask(t.Context(), "br0")
	if err != nil || len(offers) != 1 || offers[0].File != "pxelinux.0" || offers[0].Server != otherAddr {
		t.Errorf("Ask() = %+v, %v, want the other server's offer alone", offers, err)
	}
	await() // the listener heard it as well
	for _, state := range []string{"down", "up"} {
		if out, err := exec.Command("ip", "link", "set", "br0", state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for end := time.Now().Add(patience); len(heard) == 0 && time.Now().Before(end); {
		ask(2 * time.Second) // what is sent while the bridge comes up is lost
	}
	await()
}
