package dhcpd

import (
	"fmt"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

const (
	us     = "10.77.0.1"
	alice  = "52:54:00:00:00:01"
	bob    = "52:54:00:00:00:02"
	all255 = "255.255.255.255:68"
)

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
		{
			"selecting, what was offered", offered,
			message(request, alice, wanting("10.77.0.100"), toServer(us)), false,
			"ACK 10.77.0.100 to " + all255,
		},
		{
			"selecting, free and never offered", nil,
			message(request, alice, wanting("10.77.0.105"), toServer(us)), false,
			"ACK 10.77.0.105 to " + all255,
		},
		{
			"selecting, the address in ciaddr", offered,
			message(request, alice, having("10.77.0.100"), toServer(us)), false,
			"ACK 10.77.0.100 to 10.77.0.100:68",
		},
		{
			"selecting, another server", offered,
			message(request, alice, wanting("10.77.0.100"), toServer("10.77.0.2")), false,
			"silence: takes the address offered by 10.77.0.2",
		},
		{
			"selecting, offered to another", offered,
			message(request, bob, wanting("10.77.0.100"), toServer(us)), false,
			"NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error(),
		},
		{
			"selecting, not ours to give", nil, message(request, alice, wanting("10.77.0.20"), toServer(us)),
			false, "NAK to " + all255 + ": 10.77.0.20: " + leases.ErrElsewhere.Error(),
		},
		{
			"selecting, another network", nil, message(request, alice, wanting("192.0.2.7"), toServer(us)),
			false, "NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24",
		},
		{
			"selecting, no address", nil, message(request, alice, toServer(us)), false,
			"silence: a REQUEST without an address",
		},
		{
			"selecting, the same again", alices,
			message(request, alice, wanting("10.77.0.100"), toServer(us)), false,
			"ACK 10.77.0.100 to " + all255,
		},
		// Init-reboot.
		{
			"init-reboot, its own", alices, message(request, alice, wanting("10.77.0.100")), false,
			"ACK 10.77.0.100 to " + all255,
		},
		{
			"init-reboot, not its own", alices, message(request, alice, wanting("10.77.0.101")), false,
			"NAK to " + all255 + ": its address is 10.77.0.100",
		},
		{
			"init-reboot, another network", alices, message(request, alice, wanting("192.0.2.7")), false,
			"NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24",
		},
		{
			"init-reboot, no record", nil, message(request, alice, wanting("10.77.0.100")), false,
			"silence: no record of this client",
		},
		{
			"init-reboot, only an offer", offered, message(request, alice, wanting("10.77.0.100")), false,
			"silence: no record of this client",
		},
		{
			"init-reboot, no record of it, but of somebody else there", bobs,
			message(request, alice, wanting("10.77.0.100")), false,
			"NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error(),
		},
		{"init-reboot, expired and still free", func(t *testing.T, d *desk) {
			alices(t, d)
			d.clock = d.clock.Add(2 * time.Hour)
		}, message(request, alice, wanting("10.77.0.100")), false, "ACK 10.77.0.100 to " + all255},
		{
			"init-reboot, reserved for it", nil, message(request, "52:54:00:00:00:aa", wanting("10.77.0.50")),
			false, "ACK 10.77.0.50 to " + all255,
		},
		{
			"init-reboot, another is reserved for it", nil,
			message(request, "52:54:00:00:00:aa", wanting("10.77.0.100")), false,
			"NAK to " + all255 + ": 10.77.0.100: " + leases.ErrElsewhere.Error(),
		},
		{
			"init-reboot, moved to another wire", alices,
			message(request, alice, wanting("10.77.0.100"), through("10.78.0.1")), false,
			"NAK to 10.78.0.1:67: 10.77.0.100 is not an address of 10.78.0.0/24",
		},
		// Renewing.
		{
			"renewing, its own", alices, message(request, alice, having("10.77.0.100")), true,
			"ACK 10.77.0.100 to 10.77.0.100:68",
		},
		{
			"renewing, another's", bobs, message(request, alice, having("10.77.0.100")), true,
			"NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error(),
		},
		{
			"renewing, forgotten by us and free", nil, message(request, alice, having("10.77.0.104")), true,
			"ACK 10.77.0.104 to 10.77.0.104:68",
		},
		{
			"renewing, of no network of ours", nil, message(request, alice, having("192.0.2.7")), true,
			"silence: 192.0.2.7 is no address of ours",
		},
		{
			"renewing, reserved for another since", nil, message(request, alice, having("10.77.0.50")), true,
			"NAK to " + all255 + ": 10.77.0.50: " + leases.ErrElsewhere.Error(),
		},
		{
			"renewing, from behind a relay, routed",
			func(t *testing.T, d *desk) { d.lease(t, alice, through("10.78.0.1")) },
			message(request, alice, having("10.78.0.100")), true, "ACK 10.78.0.100 to 10.78.0.100:68",
		},
		// Rebinding.
		{
			"rebinding, its own", alices, message(request, alice, having("10.77.0.100")), false,
			"ACK 10.77.0.100 to 10.77.0.100:68",
		},
		{
			"rebinding, another's", bobs, message(request, alice, having("10.77.0.100")), false,
			"NAK to " + all255 + ": 10.77.0.100: " + leases.ErrTaken.Error(),
		},
		{
			"rebinding, forgotten by us and free", nil, message(request, alice, having("10.77.0.104")), false,
			"ACK 10.77.0.104 to 10.77.0.104:68",
		},
		{
			"rebinding, another server's", nil, message(request, alice, having("10.77.0.20")), false,
			"silence: another server's address, perhaps",
		},
		{
			"rebinding, another network", nil, message(request, alice, having("192.0.2.7")), false,
			"NAK to " + all255 + ": 192.0.2.7 is not an address of 10.77.0.0/24",
		},
		{
			"rebinding, through a relay",
			func(t *testing.T, d *desk) { d.lease(t, alice, through("10.78.0.1")) },
			message(request, alice, having("10.78.0.100"), through("10.78.0.1")), false,
			"ACK 10.78.0.100 to 10.78.0.1:67",
		},
		// None of them.
		{"no address at all", nil, message(request, alice), false, "silence: a REQUEST without an address"},
		{
			"a relay of no network of ours", nil,
			message(request, alice, wanting("10.79.0.9"), through("10.79.0.1")), false,
			"silence: no subnet for the relay 10.79.0.1",
		},
		{
			"a reply", nil,
			func() *dhcpv4.DHCPv4 {
				p := message(request, alice)
				p.OpCode = dhcpv4.OpcodeBootReply
				return p
			}(), false, "silence: not a request",
		},
		{
			"nobody", nil, message(request, "00:00:00:00:00:00", wanting("10.77.0.100")), false,
			"silence: neither an Ethernet address nor a client identifier",
		},
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
		{
			"release", message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer(us)),
			"silence: 10.77.0.100 given back", "10.77.0.100",
		},
		{
			"release to another server",
			message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer("10.77.0.2")),
			"silence: releases to 10.77.0.2", "10.77.0.100",
		},
		{
			"release of another's",
			message(dhcpv4.MessageTypeRelease, bob, having("10.77.0.100"), toServer(us)),
			"silence: 10.77.0.100 is not its address", "10.77.0.100",
		},
		{
			"decline", message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer(us)),
			"silence: 10.77.0.100 in use by somebody else, says the client", "10.77.0.101",
		},
		{
			"decline to another server",
			message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer("10.77.0.2")),
			"silence: declines to 10.77.0.2", "10.77.0.100",
		},
		{
			"decline of another's",
			message(dhcpv4.MessageTypeDecline, bob, wanting("10.77.0.100"), toServer(us)),
			"silence: declines 10.77.0.100, which it was not given a moment ago", "10.77.0.100",
		},
		{
			"decline of nothing", message(dhcpv4.MessageTypeDecline, alice, toServer(us)),
			"silence: declines no address", "10.77.0.100",
		},
		{
			"inform", message(dhcpv4.MessageTypeInform, alice, having("10.77.0.7")), "ACK to 10.77.0.7:68",
			"10.77.0.100",
		},
		{
			"inform without an address", message(dhcpv4.MessageTypeInform, alice),
			"silence: asks for information and tells no address", "10.77.0.100",
		},
		{
			"an offer", message(dhcpv4.MessageTypeOffer, alice), "silence: a message that no client sends",
			"10.77.0.100",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t, testPlan())
			d.lease(t, alice)
			if got := d.says(c.packet, true); got != c.want {
				t.Errorf("we say\n%s, want\n%s", got, c.want)
			}
			if r, why := d.hear(message(dhcpv4.MessageTypeDiscover, alice), false); r == nil ||
				addr(r.YourIPAddr) != ip(c.then) {
				t.Errorf("then a DISCOVER gets %v %s, want %s", r, why, c.then)
			}
		})
	}
}

// Boot clients get their address and boot file in one answer.
func TestBootInServerMode(t *testing.T) {
	for _, c := range []struct{ packet, want string }{
		{
			"rom-bios-discover",
			`60="PXEClient" file="pxectl/boot.nbp" 67="pxectl/boot.nbp" siaddr=10.77.0.1 43=060108ff`,
		},
		{"edk2-x64-discover", `60="" file="pxectl/boot.nbp" 67="pxectl/boot.nbp" siaddr=10.77.0.1 43=`},
		{
			"edk2-x64-http-discover",
			`60="HTTPClient" file="" 67="http://10.77.0.1:8080/boot.ipxe" siaddr=10.77.0.1 43=`,
		},
		{
			"ipxe-bios-discover",
			`60="PXEClient" file="http://10.77.0.1:8080/boot.ipxe" ` +
				`67="http://10.77.0.1:8080/boot.ipxe" siaddr=10.77.0.1 43=`,
		},
		{"os-dhclient-discover", `60="" file="" 67="" siaddr=invalid IP 43=`},
	} {
		t.Run(c.packet, func(t *testing.T) {
			p, _, _ := golden(t, c.packet)
			r, why := newDesk(t, testPlan()).hear(p, false)
			if r == nil {
				t.Fatal(why)
			}
			got := fmt.Sprintf("60=%q file=%q 67=%q siaddr=%v 43=%x", r.ClassIdentifier(), r.BootFileName,
				r.BootFileNameOption(), addr(r.ServerIPAddr),
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
