package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// offers broadcasts an OFFER in the name of a DHCP server.
func offers(t *testing.T, from testnet.Host, server netip.Addr, more ...dhcpv4.Modifier) {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
		dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0x66, 0, 1}),
		dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 120)),
		func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply },
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	from.Forge(t, netip.AddrPortFrom(server, 67), netip.MustParseAddrPort("255.255.255.255:68"), p.ToBytes())
}

// Forged answers of as many servers as are remembered do not hide a rogue server: it is in the log, on the
// timeline and in the doctor's list, which says that it is full.
func TestForgedServersHideNoRogue(t *testing.T) {
	testnet.Need(t, "ip")
	s, stranger := newSite(t), client(t)
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	until := func(want string) {
		t.Helper()
		var got string
		for end := time.Now().Add(time.Minute); !strings.Contains(got, want); {
			checks, err := remote.Doctor(t.Context())
			if got = apitest.ChecksOf(checks, "other DHCP servers"); err != nil || time.Now().After(end) {
				t.Fatalf("%q, %v, want %q", got, err, want)
			}
		}
	}
	for i := range rogue.MaxServers {
		offers(t, stranger, netip.AddrFrom4([4]byte{10, 66, 0, byte(i + 1)}))
	}
	until(fmt.Sprintf("warn: %d were heard within a day, and no more are remembered", rogue.MaxServers))
	offers(t, stranger, netip.MustParseAddr("10.77.0.66"),
		dhcpv4.WithOption(dhcpv4.OptBootFileName("evil.efi")))
	const named = `another DHCP server, 10.77.0.66 on br0, tells machines to boot "evil.efi"`
	until("fail: " + named)
	s.event(t, named)
	if log := s.log.String(); !strings.Contains(log, "another DHCP server tells machines what to boot") ||
		!strings.Contains(log, "10.77.0.66") {
		t.Errorf("the log does not name the rogue:\n%s", log)
	}
}

// An answer with our own address in it is a stranger's: doctor and why say so, and name its MAC.
func TestSomebodyWithOurAddressIsNamed(t *testing.T) {
	testnet.Need(t, "ip")
	s, stranger := newSite(t), client(t)
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	offers(t, stranger, netip.MustParseAddr("10.77.0.1"),
		dhcpv4.WithOption(dhcpv4.OptBootFileName("snponly.efi")))
	const from = "with our address 10.77.0.1"
	s.event(t, "somebody answers "+from)
	s.why(t, "52:54:00:66:00:01", "somebody answers it "+from+", from the MAC "+string(clientMAC),
		"find the host with the MAC "+string(clientMAC))
	checks, err := remote.Doctor(t.Context())
	if got := apitest.ChecksOf(checks, "other DHCP servers"); err != nil ||
		!strings.Contains(got, "fail: somebody answers "+from) || strings.Contains(got, "another pxectl") {
		t.Errorf("doctor: %q, %v", got, err)
	}
}

// Events of invented rogue servers, more than the timeline has room for, do not push out our own.
func TestMadeUpRoguesPushOutNothing(t *testing.T) {
	testnet.Need(t, "ip")
	s, stranger := newSite(t), client(t)
	const own = "interface br7 is down"
	s.engine.NoteOwn(inventory.Event{Kind: inventory.KindInterface, Text: own})
	s.event(t, own)
	const batch = 40
	for n := range 1100 / batch {
		named := 0
		for end := time.Now().Add(time.Minute); named < (n+1)*batch; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d events name a server, want %d", named, (n+1)*batch)
			}
			for i := range batch { // a packet may be lost; one that is heard twice is one event
				offers(t, stranger, netip.AddrFrom4([4]byte{10, 66, byte(n), byte(i)}),
					dhcpv4.WithOption(dhcpv4.OptBootFileName("evil.efi")))
			}
			events, err := s.engine.Events(0, "", 10_000)
			if err != nil {
				t.Fatal(err)
			}
			named = 0
			ours := false
			for _, e := range events {
				if strings.HasPrefix(e.Text, "another DHCP server, 10.66.") {
					named++
				}
				ours = ours || e.Text == own
			}
			if !ours {
				t.Fatalf("beside %d events of made-up servers, %q is no longer there", named, own)
			}
		}
	}
}
