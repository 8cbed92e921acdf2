package dhcpd

import (
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

func TestPlanCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Plan)
		want   string // "" for no mistake
	}{
		{"a good one", func(*Plan) {}, ""},
		{
			"share", func(p *Plan) { p.UnknownShare = 101 },
			"unknown_share: 101 is no share (0 to 100 percent)",
		},
		{
			"lease time", func(p *Plan) { p.Subnets[0].Options.LeaseTime = time.Second },
			"subnets[0].options.lease_time: 1s: want between a minute and a year",
		},
		{"pools overlap", func(p *Plan) {
			p.Subnets[0].Pools = append(p.Subnets[0].Pools, leases.Range{
				First: ip("10.77.0.109"), Last: ip("10.77.0.120"),
			})
		}, "subnets[0].pools[1]: 10.77.0.109-10.77.0.120 overlaps subnets[0].pools[0], 10.77.0.100-10.77.0.109"},
		{
			"pool outside", func(p *Plan) { p.Subnets[1].Pools[0].Last = ip("10.78.1.5") },
			"subnets[1].pools[0]: 10.78.0.100-10.78.1.5 " +
				"lies outside of 10.78.0.0/24, whose hosts are 10.78.0.1-10.78.0.254",
		},
		{
			"pool with the broadcast address",
			func(p *Plan) { p.Subnets[1].Pools[0].Last = ip("10.78.0.255") },
			"subnets[1].pools[0]: 10.78.0.100-10.78.0.255 lies outside",
		},
		{
			"subnets overlap", func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("10.76.0.0/14") },
			"subnets[1].subnet: 10.76.0.0/14 overlaps subnets[0].subnet, 10.77.0.0/24",
		},
		{
			"subnet with host bits",
			func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("10.78.0.9/24") },
			"subnets[1].subnet: 10.78.0.9/24 has bits behind its prefix: do you mean 10.78.0.0/24?",
		},
		{
			"subnet of IPv6", func(p *Plan) { p.Subnets[1].Subnet = netip.MustParsePrefix("fd00::/64") },
			"subnets[1].subnet: fd00::/64: want an IPv4 network",
		},
		{"no subnet", func(p *Plan) { p.Subnets[1].Subnet = netip.Prefix{} }, "subnets[1].subnet: "},
		{
			"router outside", func(p *Plan) { p.Subnets[0].Options.Router = ip("10.9.0.1") },
			"subnets[0].options.router: 10.9.0.1 lies outside of 10.77.0.0/24",
		},
		{
			"router of a reservation outside",
			func(p *Plan) { p.Reservations[0].Options.Router = ip("10.9.0.1") },
			"reservations[0].options.router: 10.9.0.1 lies outside of 10.77.0.0/24",
		},
		{
			"reservation outside", func(p *Plan) { p.Reservations[0].Address = ip("10.9.0.1") },
			"reservations[0].address: 10.9.0.1 lies outside of every subnet",
		},
		{
			"reservation of a network's address",
			func(p *Plan) { p.Reservations[0].Address = ip("10.77.0.0") },
			"reservations[0].address: 10.77.0.0 is no host's address in 10.77.0.0/24",
		},
		{
			"reservation of the router", func(p *Plan) { p.Reservations[0].Address = ip("10.77.0.254") },
			"reservations[0].address: 10.77.0.254 is the router of subnets[0]",
		},
		{
			"reserved twice", func(p *Plan) { p.Reservations[1].Address = ip("10.77.0.50") },
			"reservations[1].address: 10.77.0.50 is reserved by reservations[0] already",
		},
		{
			"two for one machine",
			func(p *Plan) { p.Reservations[1].UUID, p.Reservations[1].MAC = "", "52-54-00-00-00-AA" },
			"reservations[1]: is for the same machine as reservations[0]",
		},
		{"router of a reservation for all subnets outside", func(p *Plan) {
			p.Reservations[0].Address, p.Reservations[0].Options.Router = netip.Addr{}, ip("10.9.0.1")
		}, "reservations[0].options.router: 10.9.0.1 lies outside of every subnet"},
		{"two for one machine in all subnets", func(p *Plan) {
			p.Reservations[0].Address = netip.Addr{}
			p.Reservations[1] = Reservation{MAC: p.Reservations[0].MAC}
		}, "reservations[1]: is for the same machine as reservations[0]"},
		{
			"for nobody", func(p *Plan) { p.Reservations[0].MAC = "" },
			"reservations[0]: for whom? want mac, client_id, uuid, or circuit_id and remote_id",
		},
		{"for two", func(p *Plan) { p.Reservations[0].ClientID = "x" }, "reservations[0]: want one of mac"},
		{
			"mac", func(p *Plan) { p.Reservations[0].MAC = "52:54" },
			`reservations[0]: mac "52:54" is no Ethernet address`,
		},
		{
			"hostname", func(p *Plan) { p.Reservations[0].Hostname = "a b" },
			`reservations[0].hostname: "a b" is no host name`,
		},
		{
			"mtu", func(p *Plan) { p.Subnets[0].Options.MTU = 60 },
			"subnets[0].options.mtu: 60: want 68 to 65535",
		},
		{
			"dns of IPv6", func(p *Plan) { p.Subnets[0].Options.DNS[0] = ip("fd00::1") },
			"subnets[0].options.dns: fd00::1 is no IPv4 address",
		},
		{
			"an option with a key of its own", func(p *Plan) { p.Subnets[0].Options.Other[0].Code = 3 },
			"subnets[0].options.other[0].code: 3 is options.router",
		},
		{
			"an option without a value", func(p *Plan) { p.Subnets[0].Options.Other[0].Text = "" },
			"subnets[0].options.other[0]: option 252: want one of text, hex and addresses",
		},
		{
			"an option that is not hexadecimal",
			func(p *Plan) { p.Subnets[0].Options.Other[0] = Option{Code: 43, Hex: "0g"} },
			`subnets[0].options.other[0]: option 43: hex "0g"`,
		},
		{
			"an option too long",
			func(p *Plan) { p.Subnets[0].Options.Other[0].Text = strings.Repeat("x", 256) },
			"subnets[0].options.other[0]: 256 bytes, at most 255 fit",
		},
		{
			"route", func(p *Plan) { p.Subnets[0].Options.Routes[0].Via = netip.Addr{} },
			"subnets[0].options.routes[0]: 10.9.0.0/16 via invalid IP: want an IPv4 network and an IPv4 address",
		},
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

// A machine may have a reservation in each subnet, and one for all others. The options of a reservation are
// not sent in another's subnet.
func TestReservationsAreForTheirSubnets(t *testing.T) {
	const mac = "52:54:00:00:00:aa"
	p := testPlan()
	p.Subnets = append(p.Subnets, Subnet{
		Subnet:  netip.MustParsePrefix("10.79.0.0/24"),
		Pools:   []leases.Range{{First: ip("10.79.0.100"), Last: ip("10.79.0.109")}},
		Options: Options{Router: ip("10.79.0.254")},
	})
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
			t.Errorf("through %q it is told %v, %q, router %q; want %s, %q, %q", c.relay, r.YourIPAddr,
				r.HostName(), router, c.addr, c.host, c.router)
		}
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
		{
			"mac, through the other network", message(1, "52:54:00:00:00:aa", through("10.78.0.1")),
			"10.78.0.100",
		},
		{"uuid", message(1, alice, option(97, uuid)), "10.77.0.51"},
		{"client identifier", message(1, alice, option(61, []byte{255, 1, 2, 3})), "10.77.0.52"},
		{"switch port", message(1, alice, through("10.78.0.1"), agent("eth1/7", "\xab\xcd")), "10.78.0.60"},
		{
			"switch port of another switch",
			message(1, alice, through("10.78.0.1"), agent("eth1/7", "\xab\xce")), "10.78.0.100",
		},
		{
			"port of whatever switch", message(1, alice, through("10.78.0.1"), agent("eth1/8", "\xab\xce")),
			"10.78.0.61",
		},
		{"none", message(1, alice), "10.77.0.100"},
		{
			"link selection without a relay", message(1, alice, option(82, []byte{5, 4, 10, 78, 0, 0})),
			"10.77.0.100",
		},
		{
			"link selection before giaddr",
			message(1, alice, through("10.77.0.9"), option(82, []byte{5, 4, 10, 78, 0, 0})), "10.78.0.100",
		},
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
		{
			"all that it asks for", message(1, alice, all),
			"1=ffffff00 3=0a4d00fe 6=0a4d00010a4d0002 15=7261636b2e6578616d706c65 26=05aa 42=0a4d0003 " +
				"51=00000e10 54=0a4d0001 58=00000708 59=00000c4e " +
				"121=100a090a4d00fd000a4d00fe 252=687474703a2f2f31302e37372e302e312f77706164",
		},
		{
			"only what it asks for", message(1, alice, option(55, []byte{1, 3})),
			"1=ffffff00 3=0a4d00fe 51=00000e10 54=0a4d0001 58=00000708 59=00000c4e " +
				"252=687474703a2f2f31302e37372e302e312f77706164",
		},
		{
			"the reservation's own before the subnet's",
			message(1, "52:54:00:00:00:aa", option(55, []byte{26})),
			"1=ffffff00 12=7265736572766564 26=2328 51=00001c20 54=0a4d0001 58=00000e10 59=0000189c " +
				"252=687474703a2f2f31302e37372e302e312f77706164",
		},
		{
			"a shorter lease that it asks for",
			message(1, alice, option(55, []byte{1}), option(51, []byte{0, 0, 1, 44})),
			"1=ffffff00 51=0000012c 54=0a4d0001 58=00000096 59=00000106 " +
				"252=687474703a2f2f31302e37372e302e312f77706164",
		},
		{
			"no longer one", message(1, alice, option(55, []byte{1}), option(51, []byte{255, 255, 255, 255})),
			"1=ffffff00 51=00000e10 54=0a4d0001 58=00000708 59=00000c4e " +
				"252=687474703a2f2f31302e37372e302e312f77706164",
		},
		{
			"a relay that wants to be the server",
			message(1, alice, through("10.78.0.1"), option(82, []byte{11, 4, 10, 78, 0, 1})),
			"1=ffffff00 51=00000e10 54=0a4e0001 58=00000708 59=00000c4e",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := offer(c.packet); got != c.want {
				t.Errorf("told\n%s, want\n%s", got, c.want)
			}
		})
	}
}

// After our own address has changed, answers carry the new one, and no client gets it.
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

func TestListenNamesAForeignLeaseFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(file, []byte("lease 10.0.0.1 { starts 4 2026/11/19; }"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := newLeaseServer(LeaseConfig{Plan: testPlan(), File: file},
		newLinks([]Interface{{"prov", ourAddr}}, time.Now), discard, time.Now)
	if a != nil || err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("newLeaseServer() = %v, %v, want an error that names %s", a, err, file)
	}
}
