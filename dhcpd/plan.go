package dhcpd

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/internal/subnet"
)

// A Plan is the operator's configuration of server mode.
type Plan struct {
	LeaseTime    time.Duration `yaml:"lease_time"`
	UnknownShare int           `yaml:"unknown_share"` // percent of each subnet's pools
	Probe        bool          `yaml:"probe"`
	// IgnoreClientID identifies clients by their MAC alone. It is for machines whose firmware, iPXE and
	// operating system send different client identifiers.
	IgnoreClientID bool          `yaml:"ignore_client_id"`
	Subnets        []Subnet      `yaml:"subnets"`
	Reservations   []Reservation `yaml:"reservations"`
}

// A Subnet is one network: ours, or one behind a relay.
type Subnet struct {
	Subnet  netip.Prefix   `yaml:"subnet"`
	Pools   []leases.Range `yaml:"pools"`
	Options Options        `yaml:"options"`
}

// A Reservation is what one machine, or whatever is plugged into one switch port, gets.
// It is found by one of MAC, ClientID, UUID, or by CircuitID, RemoteID or both of them.
type Reservation struct {
	MAC       string `yaml:"mac"`
	ClientID  string `yaml:"client_id"` // option 61 in hexadecimal, or as text
	UUID      string `yaml:"uuid"`
	CircuitID string `yaml:"circuit_id"` // option 82 suboption 1, likewise
	RemoteID  string `yaml:"remote_id"`  // option 82 suboption 2, likewise
	// Address is the machine's address; the reservation is for the subnet of Address alone. Without an
	// Address the reservation is for all subnets: the machine gets any address of the pool, and the options
	// below.
	Address  netip.Addr `yaml:"address"`
	Hostname string     `yaml:"hostname"`
	Options  Options    `yaml:"options"`
}

const (
	minLease    = time.Minute
	maxPool     = 1 << 20 // addresses of a subnet; it bounds the memory that a flood can take
	maxHostname = 63
)

// Check returns every mistake in a plan as "key: what is wrong", the key relative to the plan; none for a
// good plan.
func (p *Plan) Check() []string {
	var c checker
	c.leaseTime("lease_time", p.LeaseTime)
	if p.UnknownShare < 0 || p.UnknownShare > 100 {
		c.wrong("unknown_share", "%d is no share (0 to 100 percent)", p.UnknownShare)
	}
	for i, s := range p.Subnets {
		c.subnet(fmt.Sprintf("subnets[%d]", i), i, s, p.Subnets)
	}
	seen := map[string]string{}
	for i, r := range p.Reservations {
		c.reservation(fmt.Sprintf("reservations[%d]", i), r, p.Subnets, seen)
	}
	return c.mistakes
}

type checker struct{ mistakes []string }

func (c *checker) wrong(key, format string, args ...any) {
	c.mistakes = append(c.mistakes, key+": "+fmt.Sprintf(format, args...))
}

func (c *checker) leaseTime(key string, d time.Duration) {
	if d != 0 && (d < minLease || d > 365*24*time.Hour) {
		c.wrong(key, "%s: want between a minute and a year", d)
	}
}

func (c *checker) subnet(key string, at int, s Subnet, all []Subnet) {
	if !s.Subnet.Addr().Is4() || s.Subnet.Bits() > 30 {
		c.wrong(key+".subnet", "%v: want an IPv4 network of /30 or wider", s.Subnet)
		return
	}
	if s.Subnet != s.Subnet.Masked() {
		c.wrong(key+".subnet", "%v has bits behind its prefix: do you mean %v?", s.Subnet, s.Subnet.Masked())
	}
	for i, o := range all[:at] {
		if o.Subnet.Addr().Is4() && o.Subnet.Overlaps(s.Subnet) {
			c.wrong(key+".subnet", "%v overlaps subnets[%d].subnet, %v", s.Subnet, i, o.Subnet)
		}
	}
	var size int
	for i, r := range s.Pools {
		k := fmt.Sprintf("%s.pools[%d]", key, i)
		if first, last := hosts(s.Subnet); r.First.Less(first) || last.Less(r.Last) {
			c.wrong(k, "%v lies outside of %v, whose hosts are %v-%v", r, s.Subnet, first, last)
			continue
		}
		for j, o := range s.Pools[:i] {
			if r.Overlaps(o) {
				c.wrong(k, "%v overlaps %s.pools[%d], %v", r, key, j, o)
			}
		}
		size += r.Size()
	}
	if size > maxPool {
		c.wrong(key+".pools", "%d addresses, at most %d are possible", size, maxPool)
	}
	if r := s.Options.Router; r.IsValid() && !s.Subnet.Contains(r) {
		c.wrong(key+".options.router", "%v lies outside of %v", r, s.Subnet)
	}
	c.options(key+".options", s.Options)
}

func (c *checker) reservation(key string, r Reservation, subnets []Subnet, seen map[string]string) {
	at := -1
	if r.Address.IsValid() {
		at = slices.IndexFunc(subnets, func(s Subnet) bool { return s.Subnet.Contains(r.Address) })
		if at < 0 {
			c.wrong(key+".address", "%v lies outside of every subnet", r.Address)
		} else if first, last := hosts(subnets[at].Subnet); r.Address.Less(first) || last.Less(r.Address) {
			c.wrong(key+".address", "%v is no host's address in %v", r.Address, subnets[at].Subnet)
		} else if r.Address == subnets[at].Options.Router {
			c.wrong(key+".address", "%v is the router of subnets[%d]", r.Address, at)
		}
		if before, ok := seen[r.Address.String()]; ok {
			c.wrong(key+".address", "%v is reserved by %s already", r.Address, before)
		}
		seen[r.Address.String()] = key
	}
	if m, err := r.match(); err != nil {
		c.wrong(key, "%v", err)
	} else {
		m = fmt.Sprintf("%d %s", at, m) // one machine may have a reservation in each subnet
		if before, ok := seen[m]; ok {
			c.wrong(key, "is for the same machine as %s", before)
		}
		seen[m] = key
	}
	switch g := r.Options.Router; {
	case !g.IsValid():
	case at >= 0 && !subnets[at].Subnet.Contains(g):
		c.wrong(key+".options.router", "%v lies outside of %v", g, subnets[at].Subnet)
	case at < 0 && !slices.ContainsFunc(subnets, func(s Subnet) bool { return s.Subnet.Contains(g) }):
		c.wrong(key+".options.router", "%v lies outside of every subnet", g)
	}
	if len(r.Hostname) > maxHostname || strings.ContainsFunc(r.Hostname, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}) {
		c.wrong(key+".hostname", "%q is no host name", r.Hostname)
	}
	c.options(key+".options", r.Options)
}

func (c *checker) options(key string, o Options) {
	c.leaseTime(key+".lease_time", o.LeaseTime)
	if o.MTU != 0 && (o.MTU < 68 || o.MTU > 65535) { // RFC 2132 section 5.1
		c.wrong(key+".mtu", "%d: want 68 to 65535", o.MTU)
	}
	lists := map[string][]netip.Addr{".router": nil, ".dns": o.DNS, ".ntp": o.NTP}
	if o.Router.IsValid() {
		lists[".router"] = []netip.Addr{o.Router}
	}
	for _, k := range []string{".router", ".dns", ".ntp"} {
		c.addresses(key+k, lists[k])
	}
	for i, r := range o.Routes {
		if !r.To.Addr().Is4() || !r.Via.Is4() {
			c.wrong(fmt.Sprintf("%s.routes[%d]", key, i),
				"%v via %v: want an IPv4 network and an IPv4 address", r.To, r.Via)
		}
	}
	for i, x := range o.Other {
		k := fmt.Sprintf("%s.other[%d]", key, i)
		if word, ok := ownOptions[x.Code]; ok {
			c.wrong(k+".code", "%d is %s", x.Code, word)
		} else if x.Code < 1 || x.Code > 254 {
			c.wrong(k+".code", "%d: want 1 to 254", x.Code)
		}
		c.addresses(k+".addresses", x.Addresses)
		if b, err := x.bytes(); err != nil {
			c.wrong(k, "%v", err)
		} else if len(b) > 255 {
			c.wrong(k, "%d bytes, at most 255 fit", len(b))
		}
	}
}

func (c *checker) addresses(key string, list []netip.Addr) {
	for _, a := range list {
		if !a.Is4() {
			c.wrong(key, "%v is no IPv4 address", a)
		}
	}
	if len(list) > 63 {
		c.wrong(key, "%d addresses, at most 63 fit", len(list))
	}
}

// hosts are the first and the last address that a host of a network can have.
func hosts(p netip.Prefix) (first, last netip.Addr) {
	return p.Masked().Addr().Next(), subnet.Broadcast(p).Prev()
}

// match returns the identity that the reservation is for, in the form that reservationOf looks up.
func (r Reservation) match() (string, error) {
	var found []string
	if r.MAC != "" {
		mac, err := net.ParseMAC(r.MAC)
		if err != nil || len(mac) != 6 {
			return "", fmt.Errorf("mac %q is no Ethernet address", r.MAC)
		}
		found = append(found, "mac "+string(mac))
	}
	if r.ClientID != "" {
		found = append(found, "client-id "+string(octets(r.ClientID)))
	}
	if r.UUID != "" {
		if len(r.UUID) != 36 {
			return "", fmt.Errorf("uuid %q: want the form of 4c4c4544-0042-3510-8052-b4c04f4d3232", r.UUID)
		}
		found = append(found, "uuid "+strings.ToLower(r.UUID))
	}
	if r.CircuitID != "" || r.RemoteID != "" {
		found = append(found, port(octets(r.CircuitID), octets(r.RemoteID)))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("for whom? want mac, client_id, uuid, or circuit_id and remote_id")
	}
	return "", fmt.Errorf("want one of mac, client_id, uuid, or circuit_id and remote_id, not several")
}

// octets reads hexadecimal digits with colons between the bytes, and anything else as text.
func octets(s string) []byte {
	if b, err := hex.DecodeString(strings.ReplaceAll(s, ":", "")); err == nil && strings.Contains(s, ":") {
		return b
	}
	return []byte(s)
}

// port is the identity of a switch port: the circuit ID and the remote ID of option 82. Either may be empty.
func port(circuit, remote []byte) string {
	return fmt.Sprintf("port %x/%x", circuit, remote)
}
