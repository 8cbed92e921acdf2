package dhcpd

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// testPlan has our own network with a pool from .100 to .109, and one behind a relay.
func testPlan() Plan {
	return Plan{
		LeaseTime: time.Hour, UnknownShare: 50,
		Subnets: []Subnet{
			{
				Subnet: netip.MustParsePrefix("10.77.0.0/24"), Pools: []leases.Range{{First: ip("10.77.0.100"), Last: ip("10.77.0.109")}},
				Options: Options{
					Router: ip("10.77.0.254"), DNS: []netip.Addr{ip("10.77.0.1"), ip("10.77.0.2")}, Domain: "rack.example",
					NTP: []netip.Addr{ip("10.77.0.3")}, MTU: 1450,
					Routes: []Route{{netip.MustParsePrefix("10.9.0.0/16"), ip("10.77.0.253")}},
					Other:  []Option{{Code: 252, Text: "http://10.77.0.1/wpad"}},
				},
			},
			{Subnet: netip.MustParsePrefix("10.78.0.0/24"), Pools: []leases.Range{{First: ip("10.78.0.100"), Last: ip("10.78.0.109")}}},
		},
		Reservations: []Reservation{
			{MAC: "52:54:00:00:00:aa", Address: ip("10.77.0.50"), Hostname: "reserved", Options: Options{LeaseTime: 2 * time.Hour, MTU: 9000}},
			{UUID: "4c4c4544-0042-3510-8052-b4c04f4d3232", Address: ip("10.77.0.51")},
			{ClientID: "ff:01:02:03", Address: ip("10.77.0.52")},
			{CircuitID: "eth1/7", RemoteID: "ab:cd", Address: ip("10.78.0.60")},
			{CircuitID: "eth1/8", Address: ip("10.78.0.61")},
		},
	}
}

// desk is a leaseServer without sockets, and its clock.
type desk struct {
	*leaseServer
	clock time.Time
}

func newDesk(t testing.TB, plan Plan) *desk {
	t.Helper()
	d := &desk{clock: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)}
	known := func(c Client) bool { return c.MAC[5] < 0x80 }
	a, err := newLeaseServer(LeaseConfig{Plan: plan, File: filepath.Join(t.TempDir(), "leases"), Known: known},
		newLinks([]Interface{{"prov", ourAddr}}, time.Now), discard, func() time.Time { return d.clock })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close() })
	d.leaseServer = a
	return d
}

// message is a client's packet; further options change it.
func message(kind dhcpv4.MessageType, mac string, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	hw, _ := net.ParseMAC(mac)
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		panic(err)
	}
	return p
}

func wanting(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a)))
}

func toServer(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(a)))
}
func having(a string) dhcpv4.Modifier  { return dhcpv4.WithClientIP(net.ParseIP(a)) }
func through(a string) dhcpv4.Modifier { return dhcpv4.WithGatewayIP(net.ParseIP(a)) }

func option(code uint8, b []byte) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), b)
}

// hear serves one packet and waits for what becomes of it.
func (d *desk) hear(p *dhcpv4.DHCPv4, unicast bool) (*dhcpv4.DHCPv4, string) {
	type end struct {
		r   *dhcpv4.DHCPv4
		why string
	}
	ends := make(chan end, 2)
	in := origin{from: netip.AddrPortFrom(addr(p.ClientIPAddr), clientPort), to: broadcast}
	if unicast {
		in.to = ourAddr
	}
	ask := func(context.Context, Client) (Boot, bool) { return testBoot, true }
	d.serve(context.Background(), p, clientOf(p, dhcpPort), in, ask, func(r *dhcpv4.DHCPv4, why Reason) { ends <- end{r, why.String()} })
	e := <-ends
	return e.r, e.why
}

// says is what became of a packet, in one line.
func (d *desk) says(p *dhcpv4.DHCPv4, unicast bool) string {
	r, why := d.hear(p, unicast)
	if r == nil {
		return "silence: " + why
	}
	s := r.MessageType().String()
	if a := addr(r.YourIPAddr); a.IsValid() {
		s += " " + a.String()
	}
	s += " to " + leaseDestination(clientOf(p, dhcpPort), p, r, netip.AddrPortFrom(addr(p.GatewayIPAddr), 6700)).String()
	if why != "" {
		s += ": " + why
	}
	return s
}

const (
	us     = "10.77.0.1"
	alice  = "52:54:00:00:00:01"
	bob    = "52:54:00:00:00:02"
	all255 = "255.255.255.255:68"
)

// lease gives a client its address by DISCOVER and REQUEST.
func (d *desk) lease(t *testing.T, mac string, more ...dhcpv4.Modifier) string {
	t.Helper()
	r, why := d.hear(message(dhcpv4.MessageTypeDiscover, mac, more...), false)
	if r == nil {
		t.Fatalf("DISCOVER: silence: %s", why)
	}
	a := addr(r.YourIPAddr).String()
	r, why = d.hear(message(dhcpv4.MessageTypeRequest, mac, append(more, wanting(a), toServer(addr(r.ServerIdentifier()).String()))...), false)
	if r == nil || r.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("REQUEST of %s: %v, %s", a, r, why)
	}
	return a
}

func TestRequestStates(t *testing.T) {
	request := dhcpv4.MessageTypeRequest
	alices := func(t *testing.T, d *desk) { d.lease(t, alice) }                 // 10.77.0.100
	bobs := func(t *testing.T, d *desk) { d.lease(t, bob) }                     // 10.77.0.100
	offered := func(t *testing.T, d *desk) { d.says(message(1, alice), false) } // 10.77.0.100
	for _, c := range []struct {
		name    string
		before  func(*testing.T, *desk)
		packet  *dhcpv4.DHCPv4
		unicast bool
		want    string
	}{
		// Selecting.
		{"selecting, what was offered", offered, message(request, alice, wanting("10.77.0.100"), toServer(us)), false, "ACK 10.77.0.100 to " + all255},
		{"selecting, free and never offered", nil, message(request, alice, wanting("10.77.0.105"), toServer(us)), false, "ACK 10.77.0.105 to " + all255},
		{"selecting, the address in ciaddr", offered, message(request, alice, having("10.77.0.100"), toServer(us)), false, "ACK 10.77.0.100 to 10.77.0.100:68"},
		{"selecting, another server", offered, message(request, alice, wanting("10.77.0.100"), toServer("10.77.0.2")), false, "silence: takes the address offered by 10.77.0.2"},
		{"selecting, offered to another", offered, message(request, bob, wanting("10.77.0.100"), toServer(us)), false, "NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error()},
		{"selecting, not ours to give", nil, message(request, alice, wanting("10.77.0.20"), toServer(us)), false, "NAK to " + all255 + ": 10.77.0.20: " + leases.ErrElsewhere.Error()},
		{"selecting, another network", nil, message(request, alice, wanting("192.0.2.7"), toServer(us)), false, "NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24"},
		{"selecting, no address", nil, message(request, alice, toServer(us)), false, "silence: a REQUEST without an address"},
		{"selecting, the same again", alices, message(request, alice, wanting("10.77.0.100"), toServer(us)), false, "ACK 10.77.0.100 to " + all255},
		// Init-reboot.
		{"init-reboot, its own", alices, message(request, alice, wanting("10.77.0.100")), false, "ACK 10.77.0.100 to " + all255},
		{"init-reboot, not its own", alices, message(request, alice, wanting("10.77.0.101")), false, "NAK to " + all255 + ": its address is 10.77.0.100"},
		{"init-reboot, another network", alices, message(request, alice, wanting("192.0.2.7")), false, "NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24"},
		{"init-reboot, no record", nil, message(request, alice, wanting("10.77.0.100")), false, "silence: no record of this client"},
		{"init-reboot, only an offer", offered, message(request, alice, wanting("10.77.0.100")), false, "silence: no record of this client"},
		{"init-reboot, no record of it, but of somebody else there", bobs, message(request, alice, wanting("10.77.0.100")), false, "NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error()},
		{"init-reboot, expired and still free", func(t *testing.T, d *desk) {
			alices(t, d)
			d.clock = d.clock.Add(2 * time.Hour)
		}, message(request, alice, wanting("10.77.0.100")), false, "ACK 10.77.0.100 to " + all255},
		{"init-reboot, reserved for it", nil, message(request, "52:54:00:00:00:aa", wanting("10.77.0.50")), false, "ACK 10.77.0.50 to " + all255},
		{"init-reboot, another is reserved for it", nil, message(request, "52:54:00:00:00:aa", wanting("10.77.0.100")), false, "NAK to " + all255 + ": 10.77.0.100: " + leases.ErrElsewhere.Error()},
		{"init-reboot, moved to another wire", alices, message(request, alice, wanting("10.77.0.100"), through("10.78.0.1")), false, "NAK to 10.78.0.1:67: 10.77.0.100 is not an address of 10.78.0.0/24"},
		// Renewing.
		{"renewing, its own", alices, message(request, alice, having("10.77.0.100")), true, "ACK 10.77.0.100 to 10.77.0.100:68"},
		{"renewing, another's", bobs, message(request, alice, having("10.77.0.100")), true, "NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error()},
		{"renewing, forgotten by us and free", nil, message(request, alice, having("10.77.0.104")), true, "ACK 10.77.0.104 to 10.77.0.104:68"},
		{"renewing, of no network of ours", nil, message(request, alice, having("192.0.2.7")), true, "silence: 192.0.2.7 is no address of ours"},
		{"renewing, reserved for another since", nil, message(request, alice, having("10.77.0.50")), true, "NAK to " + all255 + ": 10.77.0.50: " + leases.ErrElsewhere.Error()},
		{
			"renewing, from behind a relay, routed", func(t *testing.T, d *desk) { d.lease(t, alice, through("10.78.0.1")) },
			message(request, alice, having("10.78.0.100")), true, "ACK 10.78.0.100 to 10.78.0.100:68",
		},
		// Rebinding.
		{"rebinding, its own", alices, message(request, alice, having("10.77.0.100")), false, "ACK 10.77.0.100 to 10.77.0.100:68"},
		{"rebinding, another's", bobs, message(request, alice, having("10.77.0.100")), false, "NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error()},
		{"rebinding, forgotten by us and free", nil, message(request, alice, having("10.77.0.104")), false, "ACK 10.77.0.104 to 10.77.0.104:68"},
		{"rebinding, another server's", nil, message(request, alice, having("10.77.0.20")), false, "silence: another server's address, perhaps"},
		{"rebinding, another network", nil, message(request, alice, having("192.0.2.7")), false, "NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24"},
		{
			"rebinding, through a relay", func(t *testing.T, d *desk) { d.lease(t, alice, through("10.78.0.1")) },
			message(request, alice, having("10.78.0.100"), through("10.78.0.1")), false, "ACK 10.78.0.100 to 10.78.0.1:67",
		},
		// None of them.
		{"no address at all", nil, message(request, alice), false, "silence: a REQUEST without an address"},
		{"a relay of no network of ours", nil, message(request, alice, wanting("10.79.0.9"), through("10.79.0.1")), false, "silence: no subnet for the relay 10.79.0.1"},
		{"a reply", nil, func() *dhcpv4.DHCPv4 { p := message(request, alice); p.OpCode = dhcpv4.OpcodeBootReply; return p }(), false, "silence: not a request"},
		{"nobody", nil, message(request, "00:00:00:00:00:00", wanting("10.77.0.100")), false, "silence: neither an Ethernet address nor a client identifier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t, testPlan())
			if c.before != nil {
				c.before(t, d)
			}
			if got := d.says(c.packet, c.unicast); got != c.want {
				t.Errorf("we say\n%s, want\n%s", got, c.want)
			}
		})
	}
}

func TestOtherMessages(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet *dhcpv4.DHCPv4
		want   string
		then   string // what alice is offered next
	}{
		{"release", message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer(us)), "silence: 10.77.0.100 given back", "10.77.0.100"},
		{"release to another server", message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer("10.77.0.2")), "silence: releases to 10.77.0.2", "10.77.0.100"},
		{"release of another's", message(dhcpv4.MessageTypeRelease, bob, having("10.77.0.100"), toServer(us)), "silence: 10.77.0.100 is not its address", "10.77.0.100"},
		{"decline", message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer(us)), "silence: 10.77.0.100 in use by somebody else, says the client", "10.77.0.101"},
		{"decline to another server", message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer("10.77.0.2")), "silence: declines to 10.77.0.2", "10.77.0.100"},
		{"decline of another's", message(dhcpv4.MessageTypeDecline, bob, wanting("10.77.0.100"), toServer(us)), "silence: declines 10.77.0.100, which it was not given a moment ago", "10.77.0.100"},
		{"decline of nothing", message(dhcpv4.MessageTypeDecline, alice, toServer(us)), "silence: declines no address", "10.77.0.100"},
		{"inform", message(dhcpv4.MessageTypeInform, alice, having("10.77.0.7")), "ACK to 10.77.0.7:68", "10.77.0.100"},
		{"inform without an address", message(dhcpv4.MessageTypeInform, alice), "silence: asks for information and tells no address", "10.77.0.100"},
		{"an offer", message(dhcpv4.MessageTypeOffer, alice), "silence: a message that no client sends", "10.77.0.100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t, testPlan())
			d.lease(t, alice)
			if got := d.says(c.packet, true); got != c.want {
				t.Errorf("we say\n%s, want\n%s", got, c.want)
			}
			if r, why := d.hear(message(dhcpv4.MessageTypeDiscover, alice), false); r == nil || addr(r.YourIPAddr) != ip(c.then) {
				t.Errorf("then a DISCOVER gets %v %s, want %s", r, why, c.then)
			}
		})
	}
}

func TestReservations(t *testing.T) {
	uuid, _ := hex.DecodeString("00" + "44454c4c420010358052b4c04f4d3232")
	agent := func(circuit, remote string) dhcpv4.Modifier {
		b := append([]byte{1, byte(len(circuit))}, circuit...)
		return option(82, append(append(b, 2, byte(len(remote))), remote...))
	}
	for _, c := range []struct {
		name   string
		packet *dhcpv4.DHCPv4
		want   string
	}{
		{"mac", message(1, "52:54:00:00:00:aa"), "10.77.0.50"},
		{"mac, through the other network", message(1, "52:54:00:00:00:aa", through("10.78.0.1")), "10.78.0.100"},
		{"uuid", message(1, alice, option(97, uuid)), "10.77.0.51"},
		{"client identifier", message(1, alice, option(61, []byte{255, 1, 2, 3})), "10.77.0.52"},
		{"switch port", message(1, alice, through("10.78.0.1"), agent("eth1/7", "\xab\xcd")), "10.78.0.60"},
		{"switch port of another switch", message(1, alice, through("10.78.0.1"), agent("eth1/7", "\xab\xce")), "10.78.0.100"},
		{"port of whatever switch", message(1, alice, through("10.78.0.1"), agent("eth1/8", "\xab\xce")), "10.78.0.61"},
		{"none", message(1, alice), "10.77.0.100"},
		{"link selection without a relay", message(1, alice, option(82, []byte{5, 4, 10, 78, 0, 0})), "10.77.0.100"},
		{"link selection before giaddr", message(1, alice, through("10.77.0.9"), option(82, []byte{5, 4, 10, 78, 0, 0})), "10.78.0.100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, why := newDesk(t, testPlan()).hear(c.packet, false)
			if r == nil || addr(r.YourIPAddr) != ip(c.want) {
				t.Errorf("offered %v %s, want %s", r, why, c.want)
			}
		})
	}
}

func TestWhatClientsAreTold(t *testing.T) {
	all := option(55, []byte{1, 3, 6, 12, 15, 26, 42, 51, 121})
	d := newDesk(t, testPlan())
	offer := func(p *dhcpv4.DHCPv4) string {
		r, why := d.hear(p, false)
		if r == nil {
			t.Fatal(why)
		}
		var s []string
		for _, code := range []uint8{1, 3, 6, 12, 15, 26, 42, 51, 54, 58, 59, 121, 252} {
			if v, ok := r.Options[code]; ok {
				s = append(s, fmt.Sprintf("%d=%x", code, v))
			}
		}
		return strings.Join(s, " ")
	}
	for _, c := range []struct {
		name   string
		packet *dhcpv4.DHCPv4
		want   string
	}{
		{"all that it asks for", message(1, alice, all), "1=ffffff00 3=0a4d00fe 6=0a4d00010a4d0002 15=7261636b2e6578616d706c65 26=05aa 42=0a4d0003 51=00000e10 54=0a4d0001 58=00000708 59=00000c4e" +
			" 121=100a090a4d00fd000a4d00fe 252=687474703a2f2f31302e37372e302e312f77706164"},
		{"only what it asks for", message(1, alice, option(55, []byte{1, 3})), "1=ffffff00 3=0a4d00fe 51=00000e10 54=0a4d0001 58=00000708 59=00000c4e 252=687474703a2f2f31302e37372e302e312f77706164"},
		{"the reservation's own before the subnet's", message(1, "52:54:00:00:00:aa", option(55, []byte{26})), "1=ffffff00 12=7265736572766564 26=2328 51=00001c20 54=0a4d0001 58=00000e10 59=0000189c 252=687474703a2f2f31302e37372e302e312f77706164"},
		{"a shorter lease that it asks for", message(1, alice, option(55, []byte{1}), option(51, []byte{0, 0, 1, 44})), "1=ffffff00 51=0000012c 54=0a4d0001 58=00000096 59=00000106 252=687474703a2f2f31302e37372e302e312f77706164"},
		{"no longer one", message(1, alice, option(55, []byte{1}), option(51, []byte{255, 255, 255, 255})), "1=ffffff00 51=00000e10 54=0a4d0001 58=00000708 59=00000c4e 252=687474703a2f2f31302e37372e302e312f77706164"},
		{"a relay that wants to be the server", message(1, alice, through("10.78.0.1"), option(82, []byte{11, 4, 10, 78, 0, 1})), "1=ffffff00 51=00000e10 54=0a4e0001 58=00000708 59=00000c4e"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := offer(c.packet); got != c.want {
				t.Errorf("told\n%s, want\n%s", got, c.want)
			}
		})
	}
}

// Boot clients get address and boot file in one answer.
func TestBootInServerMode(t *testing.T) {
	for _, c := range []struct{ packet, want string }{
		{"rom-bios-discover", `60="PXEClient" file="pxectl/boot.nbp" 67="pxectl/boot.nbp" siaddr=10.77.0.1 43=060108ff`},
		{"edk2-x64-discover", `60="" file="pxectl/boot.nbp" 67="pxectl/boot.nbp" siaddr=10.77.0.1 43=`},
		{"edk2-x64-http-discover", `60="HTTPClient" file="" 67="http://10.77.0.1:8080/boot.ipxe" siaddr=10.77.0.1 43=`},
		{"ipxe-bios-discover", `60="PXEClient" file="http://10.77.0.1:8080/boot.ipxe" 67="http://10.77.0.1:8080/boot.ipxe" siaddr=10.77.0.1 43=`},
		{"os-dhclient-discover", `60="" file="" 67="" siaddr=invalid IP 43=`},
	} {
		t.Run(c.packet, func(t *testing.T) {
			p, _, _ := golden(t, c.packet)
			r, why := newDesk(t, testPlan()).hear(p, false)
			if r == nil {
				t.Fatal(why)
			}
			got := fmt.Sprintf("60=%q file=%q 67=%q siaddr=%v 43=%x", r.ClassIdentifier(), r.BootFileName, r.BootFileNameOption(), addr(r.ServerIPAddr),
				r.GetOneOption(dhcpv4.OptionVendorSpecificInformation))
			if got != c.want || addr(r.YourIPAddr) != ip("10.77.0.100") {
				t.Errorf("offered %v with\n%s, want\n%s", r.YourIPAddr, got, c.want)
			}
			if n := len(r.ToBytes()); n > limit(p) {
				t.Errorf("%d bytes, the client takes %d", n, limit(p))
			}
		})
	}
}

// A machine that changes its name between firmware and system keeps its address, and a
// flood of strangers leaves room for machines that are known.
func TestFloodOfStrangers(t *testing.T) {
	d := newDesk(t, testPlan())
	for i := range 1000 {
		d.hear(message(1, fmt.Sprintf("02:00:00:00:%02x:%02x", i>>7, 0x80|i&0x7f)), false)
	}
	if _, why := d.hear(message(1, "02:00:00:01:00:ff"), false); why != leases.ErrShare.Error() {
		t.Errorf("a stranger after the flood: %q, want %q", why, leases.ErrShare)
	}
	if a := d.lease(t, alice); a != "10.77.0.105" {
		t.Errorf("a known machine got %s", a)
	}
	if a, b := d.lease(t, alice), d.lease(t, alice, option(61, []byte{1, 0x52, 0x54, 0, 0, 0, 1})); a != b {
		t.Errorf("with its hardware address as client identifier it got %s, without %s", b, a)
	}
}

func TestPlanCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Plan)
		want   string // "" for no mistake
	}{
		{"a good one", func(*Plan) {}, ""},
		{"share", func(p *Plan) { p.UnknownShare = 101 }, "unknown_share: 101 is no share (0 to 100 percent)"},
		{"lease time", func(p *Plan) { p.Subnets[0].Options.LeaseTime = time.Second }, "subnets[0].options.lease_time: 1s: want between a minute and a year"},
		{"pools overlap", func(p *Plan) {
			p.Subnets[0].Pools = append(p.Subnets[0].Pools, leases.Range{First: ip("10.77.0.109"), Last: ip("10.77.0.120")})
		}, "subnets[0].pools[1]: 10.77.0.109-10.77.0.120 overlaps subnets[0].pools[0], 10.77.0.100-10.77.0.109"},
		{"pool outside", func(p *Plan) { p.Subnets[1].Pools[0].Last = ip("10.78.1.5") }, "subnets[1].pools[0]: 10.78.0.100-10.78.1.5 lies outside of 10.78.0.0/24, whose hosts are 10.78.0.1-10.78.0.254"},
		{"pool with the broadcast address", func(p *Plan) { p.Subnets[1].Pools[0].Last = ip("10.78.0.255") }, "subnets[1].pools[0]: 10.78.0.100-10.78.0.255 lies outside"},
		{"subnets overlap", func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("10.76.0.0/14") }, "subnets[1].subnet: 10.76.0.0/14 overlaps subnets[0].subnet, 10.77.0.0/24"},
		{"subnet with host bits", func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("10.78.0.9/24") }, "subnets[1].subnet: 10.78.0.9/24 has bits behind its prefix: do you mean 10.78.0.0/24?"},
		{"subnet of IPv6", func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("fd00::/64") }, "subnets[1].subnet: fd00::/64: want an IPv4 network"},
		{"no subnet", func(p *Plan) { p.Subnets[1].Subnet = netip.Prefix{} }, "subnets[1].subnet: "},
		{"router outside", func(p *Plan) { p.Subnets[0].Options.Router = ip("10.9.0.1") }, "subnets[0].options.router: 10.9.0.1 lies outside of 10.77.0.0/24"},
		{"router of a reservation outside", func(p *Plan) { p.Reservations[0].Options.Router = ip("10.9.0.1") }, "reservations[0].options.router: 10.9.0.1 lies outside of 10.77.0.0/24"},
		{"reservation outside", func(p *Plan) { p.Reservations[0].Address = ip("10.9.0.1") }, "reservations[0].address: 10.9.0.1 lies outside of every subnet"},
		{"reservation of a network's address", func(p *Plan) { p.Reservations[0].Address = ip("10.77.0.0") }, "reservations[0].address: 10.77.0.0 is no host's address in 10.77.0.0/24"},
		{"reservation of the router", func(p *Plan) { p.Reservations[0].Address = ip("10.77.0.254") }, "reservations[0].address: 10.77.0.254 is the router of subnets[0]"},
		{"reserved twice", func(p *Plan) { p.Reservations[1].Address = ip("10.77.0.50") }, "reservations[1].address: 10.77.0.50 is reserved by reservations[0] already"},
		{"two for one machine", func(p *Plan) { p.Reservations[1].UUID, p.Reservations[1].MAC = "", "52-54-00-00-00-AA" }, "reservations[1]: is for the same machine as reservations[0]"},
		{"router of a reservation for all subnets outside", func(p *Plan) {
			p.Reservations[0].Address, p.Reservations[0].Options.Router = netip.Addr{}, ip("10.9.0.1")
		}, "reservations[0].options.router: 10.9.0.1 lies outside of every subnet"},
		{"two for one machine in all subnets", func(p *Plan) {
			p.Reservations[0].Address = netip.Addr{}
			p.Reservations[1] = Reservation{MAC: p.Reservations[0].MAC}
		}, "reservations[1]: is for the same machine as reservations[0]"},
		{"for nobody", func(p *Plan) { p.Reservations[0].MAC = "" }, "reservations[0]: for whom? want mac, client_id, uuid, or circuit_id and remote_id"},
		{"for two", func(p *Plan) { p.Reservations[0].ClientID = "x" }, "reservations[0]: want one of mac"},
		{"mac", func(p *Plan) { p.Reservations[0].MAC = "52:54" }, `reservations[0]: mac "52:54" is no Ethernet address`},
		{"hostname", func(p *Plan) { p.Reservations[0].Hostname = "a b" }, `reservations[0].hostname: "a b" is no host name`},
		{"mtu", func(p *Plan) { p.Subnets[0].Options.MTU = 60 }, "subnets[0].options.mtu: 60: want 68 to 65535"},
		{"dns of IPv6", func(p *Plan) { p.Subnets[0].Options.DNS[0] = ip("fd00::1") }, "subnets[0].options.dns: fd00::1 is no IPv4 address"},
		{"an option with a key of its own", func(p *Plan) { p.Subnets[0].Options.Other[0].Code = 3 }, "subnets[0].options.other[0].code: 3 is options.router"},
		{"an option without a value", func(p *Plan) { p.Subnets[0].Options.Other[0].Text = "" }, "subnets[0].options.other[0]: option 252: want one of text, hex and addresses"},
		{"an option that is not hexadecimal", func(p *Plan) { p.Subnets[0].Options.Other[0] = Option{Code: 43, Hex: "0g"} }, `subnets[0].options.other[0]: option 43: hex "0g"`},
		{"an option too long", func(p *Plan) { p.Subnets[0].Options.Other[0].Text = strings.Repeat("x", 256) }, "subnets[0].options.other[0]: 256 bytes, at most 255 fit"},
		{"route", func(p *Plan) { p.Subnets[0].Options.Routes[0].Via = netip.Addr{} }, "subnets[0].options.routes[0]: 10.9.0.0/16 via invalid IP: want an IPv4 network and an IPv4 address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := testPlan()
			c.change(&p)
			got := strings.Join(p.Check(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("Check() = %q, want %q", got, c.want)
			}
		})
	}
}

func TestListenNamesAForeignLeaseFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(file, []byte("lease 10.0.0.1 { starts 4 2026/11/19; }"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := newLeaseServer(LeaseConfig{Plan: testPlan(), File: file}, newLinks([]Interface{{"prov", ourAddr}}, time.Now), discard, time.Now)
	if a != nil || err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("newLeaseServer() = %v, %v, want an error that names %s", a, err, file)
	}
}

func FuzzServe(f *testing.F) {
	for _, name := range goldenNames(f) {
		_, raw, _ := golden(f, name)
		f.Add(raw, false)
	}
	f.Add(message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer(us)).ToBytes(), true)
	f.Add(message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer(us)).ToBytes(), true)
	f.Add(message(dhcpv4.MessageTypeRequest, alice, wanting("10.78.0.100"), through("10.78.0.1"), option(82, []byte{5, 4, 10, 78, 0, 0})).ToBytes(), false)
	d := newDesk(f, testPlan())
	f.Fuzz(func(t *testing.T, raw []byte, unicast bool) {
		p, err := dhcpv4.FromBytes(raw)
		if err != nil {
			return
		}
		r, _ := d.hear(p, unicast)
		if r == nil {
			return
		}
		if _, err := dhcpv4.FromBytes(r.ToBytes()); err != nil {
			t.Errorf("our answer is not readable: %v", err)
		}
		if n := len(r.ToBytes()); n > limit(p) {
			t.Errorf("%d bytes, the client takes %d", n, limit(p))
		}
		if a := addr(r.YourIPAddr); a.IsValid() && d.subnetOf(a) < 0 {
			t.Errorf("we gave %v, which is in no subnet", a)
		}
	})
}

func FuzzARP(f *testing.F) {
	f.Add(question(net.HardwareAddr{2, 0, 0, 0, 0, 1}, ourAddr))
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, a, ok := parseARP(b); ok && (len(mac) != 6 || !a.Is4()) {
			t.Errorf("parseARP(%x) = %v, %v", b, mac, a)
		}
	})
}

// Our own address changed: it is what answers name, and what nobody is given.
func TestReaddress(t *testing.T) {
	d := newDesk(t, testPlan())
	own := newLinks([]Interface{{"prov", ourAddr}}, time.Now)
	d.ours = own.ours
	s := &Server{links: own, leases: d.leaseServer}
	s.Readdress("prov", ip("10.77.0.100"))
	s.Readdress("office", ip("10.77.0.7"))
	own.names = map[int]string{7: "prov"}
	if i, ok := own.find(7); !ok || i.Addr != ip("10.77.0.100") {
		t.Errorf("find() = %+v, %v, want the new address", i, ok)
	}
	if got := d.lease(t, bob); got != "10.77.0.101" {
		t.Errorf("the first address of the pool is ours, and bob gets %s, want the next one", got)
	}
	if d.ours(ourAddr) || d.ours(ip("10.77.0.7")) {
		t.Error("the old address or that of another interface is taken for ours")
	}
}

// A machine may have a reservation in each subnet, and one for all others; what one of them says is not told in another subnet.
func TestReservationsAreForTheirSubnets(t *testing.T) {
	const mac = "52:54:00:00:00:aa"
	p := testPlan()
	p.Subnets = append(p.Subnets, Subnet{Subnet: netip.MustParsePrefix("10.79.0.0/24"), Pools: []leases.Range{{First: ip("10.79.0.100"), Last: ip("10.79.0.109")}}, Options: Options{Router: ip("10.79.0.254")}})
	p.Reservations = []Reservation{
		{MAC: mac, Hostname: "anywhere", Options: Options{Router: ip("10.78.0.254")}},
		{MAC: mac, Address: ip("10.77.0.50"), Hostname: "here", Options: Options{Router: ip("10.77.0.253")}},
		{MAC: mac, Address: ip("10.78.0.50"), Hostname: "there"},
	}
	if mistakes := p.Check(); len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	d := newDesk(t, p)
	for _, c := range []struct{ relay, addr, host, router string }{
		{"", "10.77.0.50", "here", "10.77.0.253"},
		{"10.78.0.1", "10.78.0.50", "there", ""},
		{"10.79.0.1", "10.79.0.100", "anywhere", "10.79.0.254"},
	} {
		packet := message(dhcpv4.MessageTypeDiscover, mac)
		if c.relay != "" {
			packet.GatewayIPAddr = net.ParseIP(c.relay)
		}
		r, why := d.hear(packet, false)
		if r == nil {
			t.Errorf("through %q: %s", c.relay, why)
			continue
		}
		router := ""
		if list := r.Router(); len(list) > 0 {
			router = list[0].String()
		}
		if r.YourIPAddr.String() != c.addr || r.HostName() != c.host || router != c.router {
			t.Errorf("through %q it is told %v, %q, router %q; want %s, %q, %q", c.relay, r.YourIPAddr, r.HostName(), router, c.addr, c.host, c.router)
		}
	}
}

// One machine calls itself differently in its ROM, in iPXE and in its system (RFC 4361), and keeps its address when client identifiers are ignored.
func TestOneMACWithManyClientIdentifiers(t *testing.T) {
	for ignore, want := range map[bool]int{true: 1, false: 3} {
		p := testPlan()
		p.IgnoreClientID = ignore
		d := newDesk(t, p)
		got := map[string]bool{}
		for _, id := range []dhcpv4.Modifier{
			func(*dhcpv4.DHCPv4) {},
			option(61, append([]byte{0}, "a UUID of its own"...)),
			option(61, append([]byte{0xff, 0, 0, 0, 1, 0, 4}, make([]byte, 16)...)),
		} {
			offer, why := d.hear(message(dhcpv4.MessageTypeDiscover, alice, id), false)
			if offer == nil {
				t.Fatal(why)
			}
			a := offer.YourIPAddr.String()
			if ack, why := d.hear(message(dhcpv4.MessageTypeRequest, alice, id, wanting(a), toServer(us)), false); ack == nil || ack.YourIPAddr.String() != a {
				t.Fatalf("REQUEST of %s: %v, %s", a, ack, why)
			}
			got[a] = true
		}
		if len(got) != want {
			t.Errorf("ignore_client_id: %v: it had %d addresses, want %d", ignore, len(got), want)
		}
	}
}
