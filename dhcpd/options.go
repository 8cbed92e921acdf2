package dhcpd

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// with merges two sets of options. An option has the value of more, or that of o if more leaves it out.
func (o Options) with(more Options) Options {
	if more.LeaseTime != 0 {
		o.LeaseTime = more.LeaseTime
	}
	if more.Router.IsValid() {
		o.Router = more.Router
	}
	if more.DNS != nil {
		o.DNS = more.DNS
	}
	if more.Domain != "" {
		o.Domain = more.Domain
	}
	if more.NTP != nil {
		o.NTP = more.NTP
	}
	if more.MTU != 0 {
		o.MTU = more.MTU
	}
	if more.Routes != nil {
		o.Routes = more.Routes
	}
	other := slices.Clone(more.Other)
	for _, x := range o.Other {
		if !slices.ContainsFunc(more.Other, func(y Option) bool { return x.Code == y.Code }) {
			other = append(other, x)
		}
	}
	o.Other = other
	return o
}

// An optionSet is Options, encoded.
type optionSet struct {
	lease  time.Duration
	always []encodedOption // the subnet mask, and the options that the operator set by number
	asked  []encodedOption // for clients that request them (option 55), and for clients without option 55
}

type encodedOption struct {
	code  dhcpv4.OptionCode
	bytes []byte
}

// newOptionSet encodes the options of the clients in a subnet.
func newOptionSet(p netip.Prefix, o Options) optionSet {
	t := optionSet{lease: o.LeaseTime}
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	t.always = append(t.always, encodedOption{dhcpv4.OptionSubnetMask, mask})
	for _, x := range o.Other {
		b, _ := x.bytes() // Plan.Check has refused values that have an error
		t.always = append(t.always, encodedOption{dhcpv4.GenericOptionCode(x.Code), b})
	}
	ask := func(code dhcpv4.OptionCode, b []byte) {
		if len(b) > 0 {
			t.asked = append(t.asked, encodedOption{code, b})
		}
	}
	if o.Router.IsValid() {
		ask(dhcpv4.OptionRouter, o.Router.AsSlice())
	}
	ask(dhcpv4.OptionDomainNameServer, packed(o.DNS))
	ask(dhcpv4.OptionDomainName, []byte(o.Domain))
	ask(dhcpv4.OptionNTPServers, packed(o.NTP))
	if o.MTU != 0 {
		ask(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(o.MTU)))
	}
	if len(o.Routes) > 0 {
		routes := o.Routes
		if o.Router.IsValid() { // a client that reads option 121 ignores option 3: RFC 3442
			routes = append(slices.Clone(routes), Route{
				netip.PrefixFrom(netip.IPv4Unspecified(), 0), o.Router,
			})
		}
		var b []byte
		for _, r := range routes {
			to := r.To.Masked().Addr().As4()
			b = append(append(b, byte(r.To.Bits())), to[:(r.To.Bits()+7)/8]...)
			b = append(b, r.Via.AsSlice()...)
		}
		ask(dhcpv4.OptionClasslessStaticRoute, b)
	}
	return t
}

func packed(list []netip.Addr) []byte {
	var b []byte
	for _, a := range list {
		b = append(b, a.AsSlice()...)
	}
	return b
}

// Options are the DHCP options that clients get. The value of a reservation comes before that of its subnet.
type Options struct {
	LeaseTime time.Duration `yaml:"lease_time"`
	Router    netip.Addr    `yaml:"router"`
	DNS       []netip.Addr  `yaml:"dns"`
	Domain    string        `yaml:"domain"`
	NTP       []netip.Addr  `yaml:"ntp"`
	MTU       int           `yaml:"mtu"`
	Routes    []Route       `yaml:"routes"`
	Other     []Option      `yaml:"other"`
}

// A Route is a static route (option 121).
type Route struct {
	To  netip.Prefix `yaml:"to"`
	Via netip.Addr   `yaml:"via"`
}

// An Option is any other option, its value in one of three forms.
type Option struct {
	Code      int          `yaml:"code"`
	Text      string       `yaml:"text"`
	Hex       string       `yaml:"hex"`
	Addresses []netip.Addr `yaml:"addresses"`
}

// bytes is the value of a free-form option.
func (o Option) bytes() ([]byte, error) {
	var forms int
	for _, has := range []bool{o.Text != "", o.Hex != "", o.Addresses != nil} {
		if has {
			forms++
		}
	}
	switch {
	case forms != 1:
		return nil, fmt.Errorf("option %d: want one of text, hex and addresses", o.Code)
	case o.Text != "":
		return []byte(o.Text), nil
	case o.Hex != "":
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(o.Hex))
		if err != nil {
			return nil, fmt.Errorf("option %d: hex %q: %w", o.Code, o.Hex, err)
		}
		return b, nil
	}
	return packed(o.Addresses), nil
}

// ownOptions are the codes that Option must not have, each with the key that sets it or who else does.
var ownOptions = map[int]string{
	1: "the subnet mask, which follows from the subnet", 3: "options.router", 6: "options.dns",
	12: "reservations[].hostname",
	15: "options.domain", 26: "options.mtu", 42: "options.ntp", 50: "the client's", 51: "options.lease_time",
	52: "the protocol's",
	53: "the protocol's", 54: "the protocol's", 55: "the client's", 57: "the client's",
	58: "told by the lease time", 59: "told by the lease time",
	60: "the boot plane's", 61: "the client's", 66: "the boot plane's", 67: "the boot plane's",
	82: "the relay's", 97: "the client's", 121: "options.routes",
}
