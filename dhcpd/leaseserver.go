package dhcpd

import (
	"cmp"
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

// LeaseConfig is what the server mode needs beside the rest of a Config.
type LeaseConfig struct {
	Plan  Plan
	File  string            // where the leases are kept
	Known func(Client) bool // whether a machine is known; asked for every packet, so it must be quick
}

// A leaseServer hands out addresses.
type leaseServer struct {
	table    *leases.Table
	known    func(Client) bool
	ours     func(netip.Addr) bool // whether an address is our own, and so our server identifier
	subnets  []network
	reserved map[string][]*reservation // by identity; those for one subnet before those for all
	byMAC    bool                      // client identifiers are ignored
	prober   *prober                   // nil: no probes
	log      *slog.Logger
	now      func() time.Time

	// When the log last said that there is no address, and that one host answers all probes.
	warned, warnedHost atomic.Int64
}

// A network is a subnet, ready for answers.
type network struct {
	prefix  netip.Prefix
	options optionSet
}

type reservation struct {
	match string
	addr  netip.Addr // none: the reservation is for all subnets, else for that of addr
	host  string
	// options are what the machine is told in each subnet.
	options []optionSet
}

func newLeaseServer(c LeaseConfig, own *links, log *slog.Logger, now func() time.Time) (*leaseServer, error) {
	if mistakes := c.Plan.Check(); len(mistakes) > 0 {
		return nil, fmt.Errorf("dhcp: %s", mistakes[0])
	}
	if len(c.Plan.Subnets) == 0 {
		return nil, errors.New("dhcp: no subnet given")
	}
	s := &leaseServer{
		known: c.Known, ours: own.ours, reserved: map[string][]*reservation{}, byMAC: c.Plan.IgnoreClientID,
		log: log, now: now,
	}
	base := Options{LeaseTime: cmp.Or(c.Plan.LeaseTime, defaultLease)}
	var tables []leases.Subnet
	for _, n := range c.Plan.Subnets {
		except := slices.Collect(maps.Values(own.configured))
		if n.Options.Router.IsValid() {
			except = append(except, n.Options.Router)
		}
		for _, r := range c.Plan.Reservations {
			if n.Subnet.Contains(r.Address) {
				except = append(except, r.Address)
			}
		}
		tables = append(tables, leases.Subnet{Prefix: n.Subnet, Pools: n.Pools, Except: except})
		s.subnets = append(s.subnets, network{n.Subnet, newOptionSet(n.Subnet, base.with(n.Options))})
	}
	for _, r := range c.Plan.Reservations {
		match, err := r.match()
		if err != nil {
			return nil, fmt.Errorf("dhcp: reservation: %w", err)
		}
		found := &reservation{match: match, addr: r.Address, host: r.Hostname}
		for _, n := range c.Plan.Subnets {
			own := r.Options
			if !n.Subnet.Contains(own.Router) { // a reservation for all subnets names the router of one
				own.Router = netip.Addr{}
			}
			found.options = append(found.options, newOptionSet(n.Subnet, base.with(n.Options).with(own)))
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
	if c.Plan.Probe {
		var err error
		if s.prober, err = newProber(log); err != nil {
			return nil, err
		}
	}
	var err error
	s.table, err = leases.Open(leases.Config{
		Path: c.File, Subnets: tables, UnknownShare: c.Plan.UnknownShare, Log: log, Now: now,
	})
	if err != nil {
		if s.prober != nil {
			s.prober.close()
		}
		return nil, err
	}
	return s, nil
}

// warnOutside warns when no subnet contains our address on an interface: then no machine there gets an
// address.
func (s *leaseServer) warnOutside(iface string, ours netip.Addr) {
	if s.subnetOf(ours) < 0 {
		s.log.Warn("dhcp: no subnet contains our own address, so machines on this interface get none",
			"interface", iface, "address", ours)
	}
}

// readdress keeps our new address from clients. Our former address stays out of the pools, too: machines that
// are booting still look for us there.
func (s *leaseServer) readdress(iface string, a netip.Addr) {
	s.warnOutside(iface, a)
	if l, taken := s.table.Except(a); taken {
		s.log.Error("dhcp: our own address is a client's, too", "interface", iface, "address", a,
			"client", l.MAC.String(), "until", l.Expires)
	}
}

// Leases lists the leases of server mode by their addresses.
func (s *Server) Leases() []leases.Lease {
	if s.leases == nil {
		return nil
	}
	return s.leases.table.List()
}

// DeleteLease forgets the lease of an address. Its client keeps the address until it
// renews, and may then get it again. ok is false when there is none.
func (s *Server) DeleteLease(a netip.Addr) (l leases.Lease, ok bool, err error) {
	if s.leases == nil || !a.Is4() {
		return leases.Lease{}, false, nil
	}
	return s.leases.table.Delete(a)
}

func (s *leaseServer) close() error {
	if s.prober != nil {
		s.prober.close()
	}
	return s.table.Close()
}

// subnetOf is the index of the subnet that contains an address, or -1.
func (s *leaseServer) subnetOf(a netip.Addr) int {
	for i := range s.subnets {
		if s.subnets[i].prefix.Contains(a) {
			return i
		}
	}
	return -1
}

// A request is a client that asks us for an address, and where it is.
type request struct {
	Client
	id     string // the identity that owns its lease
	subnet int
	res    *reservation // or nil
	claim  leases.Claim
	server netip.Addr // our server identifier for the client: our address, or a relay's (RFC 5107)
	local  bool       // no relay between us
}

// locate says who and where the client is. why has a code when we cannot serve it.
// unicast is whether the packet was addressed to us and not to everybody.
func (s *leaseServer) locate(p *dhcpv4.DHCPv4, c Client, unicast bool) (q request, why Reason) {
	q = request{Client: c, server: c.Server, local: !c.Relay.IsValid()}
	q.id = s.identity(p, c)
	switch {
	case q.id == "":
		return q, Reason{Code: CodeNoIdentity}
	case len(q.id) > 255:
		return q, Reason{Code: CodeLongIdentity}
	}
	agent := suboptions(p.GetOneOption(dhcpv4.OptionRelayAgentInformation))
	// The packets of a client that has an address and sends to ours may be routed, so it may be on another
	// wire (RFC 2131 section 4.3.2, RENEWING).
	from := addr(p.ClientIPAddr)
	switch link := addr(agent[linkSelection]); {
	case link.IsValid() && c.Relay.IsValid(): // RFC 3527: only a relay selects a link
		q.subnet = s.subnetOf(link)
	case c.Relay.IsValid():
		q.subnet = s.subnetOf(c.Relay)
	case from.IsValid() && unicast && s.subnetOf(from) >= 0:
		q.subnet = s.subnetOf(from)
	default:
		q.subnet = s.subnetOf(c.Server)
	}
	if q.subnet < 0 {
		return q, Reason{Code: CodeNoSubnet, Addr: c.Relay, Name: c.Interface}
	}
	// RFC 5107: the relay wants clients to send to it as if it were the server.
	if o := addr(agent[serverOverride]); o.IsValid() && c.Relay.IsValid() {
		q.server = o
	}
	var match string
	q.res, match = s.reservationOf(p, c, agent, q.subnet)
	q.claim = leases.Claim{
		Subnet: q.subnet, Client: q.id, MAC: c.MAC, Host: c.Hostname, Want: addr(p.RequestedIPAddress()),
	}
	switch {
	case c.MAC != nil && s.known != nil && s.known(c):
		q.claim.Known, q.claim.KnownBy, q.claim.Alias = true, string(c.MAC), q.id != nameOf(c.MAC)
	case match != "": // the reservation may be a switch port's or a UUID's, with any number of MACs behind it
		q.claim.Known, q.claim.KnownBy = true, match
	}
	if q.res != nil && q.res.addr.IsValid() {
		q.claim.Reserved, q.claim.Reservation = q.res.addr, q.res.match
	}
	return q, Reason{}
}

// optionsFor returns a client's options and its host name, "" for no name.
func (s *leaseServer) optionsFor(q request) (optionSet, string) {
	if q.res != nil {
		return q.res.options[q.subnet], q.res.host
	}
	return s.subnets[q.subnet].options, ""
}

// identity returns who owns the client's lease: its client identifier, else its hardware address (RFC 2131
// section 4.2), "" without either. A hardware address gets the form that most clients use for it in an
// identifier, so that firmware without an identifier and a system with one are the same client.
func (s *leaseServer) identity(p *dhcpv4.DHCPv4, c Client) string {
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

// reservationOf finds a client's reservation in a subnet: first by the client's own identities, then by its
// switch port. match is the identity that is reserved, there or in another subnet; "" when the client has no
// reservation at all.
func (s *leaseServer) reservationOf(
	p *dhcpv4.DHCPv4, c Client, agent map[byte][]byte, subnet int,
) (res *reservation, match string) {
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

// suboptions reads option 82. It leaves out a suboption that is cut off.
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
