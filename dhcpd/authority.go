package dhcpd

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

const defaultLease = 12 * time.Hour

// Authority is what the server mode needs beside the rest of a Config.
type Authority struct {
	Plan   Plan
	Leases string            // the file that leases are kept in
	Known  func(Client) bool // whether a machine is known; asked for every packet, so it must be quick
}

// An authority hands out addresses.
type authority struct {
	table    *leases.Table
	known    func(Client) bool
	ours     func(netip.Addr) bool // whether that is our own address, all of which are server identifiers of ours
	subnets  []network
	reserved map[string][]*reservation // by identity; those for one subnet before those for all
	byMAC    bool                      // client identifiers are ignored
	prober   *prober                   // nil: no probes
	log      *slog.Logger
	warned   atomic.Int64 // when it was last told that there are no addresses
	now      func() time.Time
}

// A network is a subnet, ready for answers.
type network struct {
	prefix netip.Prefix
	told   told
}

type reservation struct {
	match string
	addr  netip.Addr // for its subnet alone; none: for all
	plan  Options    // beside its subnet's
	host  string
	// told says what the machine is told in each subnet.
	told []told
}

func newAuthority(a Authority, own *links, log *slog.Logger, now func() time.Time) (*authority, error) {
	if mistakes := a.Plan.Check(); len(mistakes) > 0 {
		return nil, fmt.Errorf("dhcp: %s", mistakes[0])
	}
	if len(a.Plan.Subnets) == 0 {
		return nil, errors.New("dhcp: no subnet given")
	}
	s := &authority{known: a.Known, ours: own.ours, reserved: map[string][]*reservation{}, byMAC: a.Plan.IgnoreClientID, log: log, now: now}
	base := Options{LeaseTime: cmp.Or(a.Plan.LeaseTime, defaultLease)}
	var tables []leases.Subnet
	for _, n := range a.Plan.Subnets {
		except := slices.Collect(maps.Values(own.configured))
		if n.Options.Router.IsValid() {
			except = append(except, n.Options.Router)
		}
		for _, r := range a.Plan.Reservations {
			if n.Subnet.Contains(r.Address) {
				except = append(except, r.Address)
			}
		}
		tables = append(tables, leases.Subnet{Prefix: n.Subnet, Pools: n.Pools, Except: except})
		s.subnets = append(s.subnets, network{n.Subnet, tell(n.Subnet, base.with(n.Options))})
	}
	for _, r := range a.Plan.Reservations {
		match, err := r.match()
		if err != nil {
			return nil, fmt.Errorf("dhcp: reservation: %w", err)
		}
		found := &reservation{match: match, addr: r.Address, plan: r.Options, host: r.Hostname}
		for _, n := range a.Plan.Subnets {
			own := r.Options
			if !n.Subnet.Contains(own.Router) { // a reservation for all subnets names the router of one
				own.Router = netip.Addr{}
			}
			found.told = append(found.told, tell(n.Subnet, base.with(n.Options).with(own)))
		}
		if r.Address.IsValid() {
			s.reserved[match] = slices.Insert(s.reserved[match], 0, found)
		} else {
			s.reserved[match] = append(s.reserved[match], found)
		}
	}
	for name, a := range own.configured {
		s.warnOutside(name, a)
	}
	if a.Plan.Probe {
		var err error
		if s.prober, err = newProber(log); err != nil {
			return nil, err
		}
	}
	var err error
	s.table, err = leases.Open(leases.Config{Path: a.Leases, Subnets: tables, UnknownShare: a.Plan.UnknownShare, Log: log, Now: now})
	if err != nil {
		if s.prober != nil {
			s.prober.close()
		}
		return nil, err
	}
	return s, nil
}

// warnOutside says that nobody on an interface gets an address.
func (s *authority) warnOutside(iface string, ours netip.Addr) {
	if s.subnetOf(ours) < 0 {
		s.log.Warn("dhcp: no subnet contains our own address, so machines on this interface get none", "interface", iface, "address", ours)
	}
}

// readdress keeps clients away from an address that is ours now. The one before stays out of the pools, too: machines
// that boot just now still look for us there.
func (s *authority) readdress(iface string, a netip.Addr) {
	s.warnOutside(iface, a)
	if l, taken := s.table.Except(a); taken {
		s.log.Error("dhcp: our own address is a client's, too", "interface", iface, "address", a, "client", l.MAC.String(), "until", l.Expires)
	}
}

// Leases lists the leases of server mode by their addresses.
func (s *Server) Leases() []leases.Lease {
	if s.authority == nil {
		return nil
	}
	return s.authority.table.List()
}

// DeleteLease forgets the lease of an address. Its client keeps the address until it
// renews, and may then get it again. ok is false when there is none.
func (s *Server) DeleteLease(a netip.Addr) (l leases.Lease, ok bool, err error) {
	if s.authority == nil || !a.Is4() {
		return leases.Lease{}, false, nil
	}
	return s.authority.table.Delete(a)
}

func (s *authority) close() error {
	if s.prober != nil {
		s.prober.close()
	}
	return s.table.Close()
}

// subnetOf is the index of the subnet that contains an address, or -1.
func (s *authority) subnetOf(a netip.Addr) int {
	for i := range s.subnets {
		if s.subnets[i].prefix.Contains(a) {
			return i
		}
	}
	return -1
}

// A guest is a client that asks us for an address, and where it is.
type guest struct {
	Client
	id     string // who it is, for a lease
	subnet int
	res    *reservation // or nil
	claim  leases.Claim
	server netip.Addr // what it knows us by: ours, or a relay's instead of it
	local  bool       // no relay between us
}

// locate says who and where the client is. why has a code when we cannot serve it.
// unicast is whether the packet was addressed to us and not to everybody.
func (s *authority) locate(p *dhcpv4.DHCPv4, c Client, unicast bool) (g guest, why Reason) {
	g = guest{Client: c, server: c.Server, local: !c.Relay.IsValid()}
	g.id = s.identity(p, c)
	switch {
	case g.id == "":
		return g, Reason{Code: CodeNoIdentity}
	case len(g.id) > 255:
		return g, Reason{Code: CodeLongIdentity}
	}
	agent := suboptions(p.GetOneOption(dhcpv4.OptionRelayAgentInformation))
	// Who has an address and talks to us alone is not on the wire that it is heard on:
	// its packets are routed (RFC 2131 section 4.3.2, RENEWING).
	from := addr(p.ClientIPAddr)
	switch link := addr(agent[linkSelection]); {
	case link.IsValid() && c.Relay.IsValid(): // only relays say so: RFC 3527
		g.subnet = s.subnetOf(link)
	case c.Relay.IsValid():
		g.subnet = s.subnetOf(c.Relay)
	case from.IsValid() && unicast && s.subnetOf(from) >= 0:
		g.subnet = s.subnetOf(from)
	default:
		g.subnet = s.subnetOf(c.Server)
	}
	if g.subnet < 0 {
		return g, Reason{Code: CodeNoSubnet, Addr: c.Relay, Name: c.Interface}
	}
	// RFC 5107: the relay wants to stand between, and be called the server.
	if o := addr(agent[serverOverride]); o.IsValid() && c.Relay.IsValid() {
		g.server = o
	}
	var match string
	g.res, match = s.reservationOf(p, c, agent, g.subnet)
	g.claim = leases.Claim{Subnet: g.subnet, Client: g.id, MAC: c.MAC, Host: c.Hostname, Want: addr(p.RequestedIPAddress())}
	switch {
	case c.MAC != nil && s.known != nil && s.known(c):
		g.claim.Known, g.claim.KnownBy, g.claim.Alias = true, string(c.MAC), g.id != nameOf(c.MAC)
	case match != "": // also by a switch port or UUID, behind which there may be any number of MACs
		g.claim.Known, g.claim.KnownBy = true, match
	}
	if g.res != nil && g.res.addr.IsValid() {
		g.claim.Reserved, g.claim.Reservation = g.res.addr, g.res.match
	}
	return g, Reason{}
}

// told is what the client is told.
func (s *authority) told(g guest) (told, string) {
	if g.res != nil {
		return g.res.told[g.subnet], g.res.host
	}
	return s.subnets[g.subnet].told, ""
}

// identity is who a lease belongs to: the client identifier, else the hardware address
// (RFC 2131 section 4.2) in the form that most clients with an identifier use for it, so
// that firmware without and a system with one are the same client.
func (s *authority) identity(p *dhcpv4.DHCPv4, c Client) string {
	id := p.GetOneOption(dhcpv4.OptionClientIdentifier)
	switch {
	case c.MAC != nil && (s.byMAC || len(id) < 2): // RFC 2132 section 9.14
		return nameOf(c.MAC)
	case len(id) < 2:
		return ""
	}
	return string(id)
}

func nameOf(mac net.HardwareAddr) string { return "\x01" + string(mac) }

// reservationOf finds a client's reservation in a subnet: by what is its own first. match is what it is reserved for, there or
// in another subnet; "" when there is no reservation for it at all.
func (s *authority) reservationOf(p *dhcpv4.DHCPv4, c Client, agent map[byte][]byte, subnet int) (res *reservation, match string) {
	if len(s.reserved) == 0 {
		return nil, ""
	}
	id := string(p.GetOneOption(dhcpv4.OptionClientIdentifier))
	if len(id) < 2 && c.MAC != nil {
		id = nameOf(c.MAC)
	}
	names := []string{"mac " + string(c.MAC), "client-id " + id, "uuid " + c.UUID}
	if agent != nil {
		circuit, remote := agent[circuitID], agent[remoteID]
		names = append(names, port(circuit, remote), port(circuit, nil), port(nil, remote))
	}
	here := s.subnets[subnet].prefix
	for _, n := range names {
		for _, r := range s.reserved[n] {
			match = cmp.Or(match, r.match)
			if !r.addr.IsValid() || here.Contains(r.addr) {
				return r, match
			}
		}
	}
	return nil, match
}

// Suboptions of option 82: RFC 3046 section 3.1, RFC 3527, RFC 5107, RFC 8357.
const (
	circuitID       = 1
	remoteID        = 2
	linkSelection   = 5
	serverOverride  = 11
	relaySourcePort = 19
)

// suboptions reads option 82; what is cut off is left out.
func suboptions(b []byte) map[byte][]byte {
	if len(b) < 2 {
		return nil
	}
	m := map[byte][]byte{}
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		m[b[0]] = b[2 : 2+int(b[1])]
		b = b[2+int(b[1]):]
	}
	return m
}

// with is o where more says nothing.
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

// told is Options as bytes.
type told struct {
	lease  time.Duration
	always []value // mask, and what the operator wrote by its number
	asked  []value // only told to those who ask for it
}

type value struct {
	code  dhcpv4.OptionCode
	bytes []byte
}

// tell makes the bytes of what clients in a subnet are told.
func tell(p netip.Prefix, o Options) told {
	t := told{lease: o.LeaseTime}
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	t.always = append(t.always, value{dhcpv4.OptionSubnetMask, mask})
	for _, x := range o.Other {
		b, _ := x.bytes() // Plan.Check has looked at it
		t.always = append(t.always, value{dhcpv4.GenericOptionCode(x.Code), b})
	}
	ask := func(code dhcpv4.OptionCode, b []byte) {
		if len(b) > 0 {
			t.asked = append(t.asked, value{code, b})
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
		if o.Router.IsValid() { // who reads 121 must not read 3: RFC 3442
			routes = append(slices.Clone(routes), Route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), o.Router})
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
