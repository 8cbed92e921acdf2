package dhcpd

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
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
				Subnet: netip.MustParsePrefix("10.77.0.0/24"),
				Pools:  []leases.Range{{First: ip("10.77.0.100"), Last: ip("10.77.0.109")}},
				Options: Options{
					Router: ip("10.77.0.254"),
					DNS:    []netip.Addr{ip("10.77.0.1"), ip("10.77.0.2")},
					Domain: "rack.example",
					NTP:    []netip.Addr{ip("10.77.0.3")}, MTU: 1450,
					Routes: []Route{{netip.MustParsePrefix("10.9.0.0/16"), ip("10.77.0.253")}},
					Other:  []Option{{Code: 252, Text: "http://10.77.0.1/wpad"}},
				},
			},
			{
				Subnet: netip.MustParsePrefix("10.78.0.0/24"),
				Pools:  []leases.Range{{First: ip("10.78.0.100"), Last: ip("10.78.0.109")}},
			},
		},
		Reservations: []Reservation{
			{
				MAC:      "52:54:00:00:00:aa",
				Address:  ip("10.77.0.50"),
				Hostname: "reserved",
				Options:  Options{LeaseTime: 2 * time.Hour, MTU: 9000},
			},
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
	a, err := newLeaseServer(LeaseConfig{
		Plan: plan, File: filepath.Join(t.TempDir(), "leases"), Known: known,
	},
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
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(kind)},
		more...)...)
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

func having(a string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(a)) }

func through(a string) dhcpv4.Modifier { return dhcpv4.WithGatewayIP(net.ParseIP(a)) }

func option(code uint8, b []byte) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), b)
}

// hear serves one packet and returns the answer, or nil and the reason.
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
	d.serve(context.Background(), p, clientOf(p, dhcpPort), in, ask, func(r *dhcpv4.DHCPv4, why Reason) {
		ends <- end{r, why.String()}
	})
	e := <-ends
	return e.r, e.why
}

// says serves one packet and returns the answer and its destination, or silence, in one line.
func (d *desk) says(p *dhcpv4.DHCPv4, unicast bool) string {
	r, why := d.hear(p, unicast)
	if r == nil {
		return "silence: " + why
	}
	s := r.MessageType().String()
	if a := addr(r.YourIPAddr); a.IsValid() {
		s += " " + a.String()
	}
	s += " to " + leaseDestination(clientOf(p, dhcpPort), p, r,
		netip.AddrPortFrom(addr(p.GatewayIPAddr), 6700)).String()
	if why != "" {
		s += ": " + why
	}
	return s
}

// lease gives a client its address by DISCOVER and REQUEST.
func (d *desk) lease(t *testing.T, mac string, more ...dhcpv4.Modifier) string {
	t.Helper()
	r, why := d.hear(message(dhcpv4.MessageTypeDiscover, mac, more...), false)
	if r == nil {
		t.Fatalf("DISCOVER: silence: %s", why)
	}
	a := addr(r.YourIPAddr).String()
	r, why = d.hear(message(dhcpv4.MessageTypeRequest, mac,
		append(more, wanting(a), toServer(addr(r.ServerIdentifier()).String()))...), false)
	if r == nil || r.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("REQUEST of %s: %v, %s", a, r, why)
	}
	return a
}
