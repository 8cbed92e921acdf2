package dhcpd

import (
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestDestination(t *testing.T) {
	at := netip.MustParseAddrPort
	relay := netip.MustParseAddr("10.78.0.1")
	for _, c := range []struct {
		name string
		c    Client
		src  netip.AddrPort
		want netip.AddrPort
	}{
		{
			"no address yet",
			Client{Port: 67, Type: dhcpv4.MessageTypeDiscover},
			at("0.0.0.0:68"),
			at("255.255.255.255:68"),
		},
		{
			"a DISCOVER from an old address",
			Client{Port: 67, Type: dhcpv4.MessageTypeDiscover},
			at("10.77.0.9:68"), at("255.255.255.255:68"),
		},
		{
			"a REQUEST without an address",
			Client{Port: 67, Type: dhcpv4.MessageTypeRequest},
			at("0.0.0.0:68"),
			at("255.255.255.255:68"),
		},
		{
			"a REQUEST with an address",
			Client{Port: 67, Type: dhcpv4.MessageTypeRequest},
			at("10.77.0.9:68"),
			at("10.77.0.9:68"),
		},
		{
			"a relay that sends from elsewhere",
			Client{Port: 67, Type: dhcpv4.MessageTypeDiscover, Relay: relay},
			at("10.78.0.254:67"),
			at("10.78.0.1:67"),
		},
		{
			"4011 from 4011",
			Client{Port: 4011, Type: dhcpv4.MessageTypeRequest},
			at("10.77.0.9:4011"),
			at("10.77.0.9:4011"),
		},
		{
			"4011 from 68",
			Client{Port: 4011, Type: dhcpv4.MessageTypeRequest},
			at("10.77.0.9:68"),
			at("10.77.0.9:68"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := destination(c.c, c.src); got != c.want {
				t.Errorf("destination(%v from %v) = %v, want %v", c.c.Type, c.src, got, c.want)
			}
		})
	}
}

func TestMAC(t *testing.T) {
	for _, c := range []struct {
		name   string
		chaddr net.HardwareAddr
		id     []byte
		want   string
	}{
		{"Ethernet", net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}, nil, "52:54:00:01:02:03"},
		{"all zero", make(net.HardwareAddr, 6), nil, ""},
		{"multicast", net.HardwareAddr{1, 0, 0x5e, 1, 2, 3}, nil, ""},
		{"InfiniBand with a client identifier", nil, []byte{1, 0x52, 0x54, 0, 1, 2, 4}, "52:54:00:01:02:04"},
		{"InfiniBand with a GUID", make(net.HardwareAddr, 16), append([]byte{0}, make([]byte, 16)...), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &dhcpv4.DHCPv4{ClientHWAddr: c.chaddr, Options: dhcpv4.Options{}}
			if c.id != nil {
				p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, c.id))
			}
			if got := macOf(p).String(); got != c.want {
				t.Errorf("macOf(%v, %x) = %q, want %q", c.chaddr, c.id, got, c.want)
			}
		})
	}
}
