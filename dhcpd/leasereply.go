package dhcpd

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// grant builds an OFFER or ACK of an address, and returns for how long the client gets it.
func (s *leaseServer) grant(
	ctx context.Context, p *dhcpv4.DHCPv4, q request, kind dhcpv4.MessageType, a netip.Addr, ask bootAsker,
) (*dhcpv4.DHCPv4, time.Duration, error) {
	t, _ := s.optionsFor(q)
	d := t.lease
	if b := p.GetOneOption(dhcpv4.OptionIPAddressLeaseTime); len(b) == 4 {
		// A client may ask for a shorter lease, of minLease at least.
		d = min(d, max(time.Duration(binary.BigEndian.Uint32(b))*time.Second, minLease))
	}
	r, err := s.build(ctx, p, q, kind, a, d, ask)
	return r, d, err
}

// build makes the answer with all its options. Without an address it answers an INFORM, and grants no lease.
func (s *leaseServer) build(
	ctx context.Context, p *dhcpv4.DHCPv4, q request, kind dhcpv4.MessageType, a netip.Addr, d time.Duration,
	ask bootAsker,
) (*dhcpv4.DHCPv4, error) {
	r := blank(p, kind, q.server)
	if a.IsValid() {
		r.YourIPAddr = a.AsSlice()
		seconds := func(code dhcpv4.OptionCode, d time.Duration) {
			r.UpdateOption(dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))))
		}
		seconds(dhcpv4.OptionIPAddressLeaseTime, d)
		seconds(dhcpv4.OptionRenewTimeValue, d/2) // RFC 2131 section 4.4.5
		seconds(dhcpv4.OptionRebindingTimeValue, d*7/8)
	}
	t, host := s.optionsFor(q)
	wants := p.GetOneOption(dhcpv4.OptionParameterRequestList)
	for _, v := range t.always {
		r.Options[v.code.Code()] = v.bytes
	}
	var spare []dhcpv4.OptionCode
	for _, v := range t.asked {
		if wants == nil || slices.Contains(wants, v.code.Code()) {
			r.Options[v.code.Code()] = v.bytes
			spare = append(spare, v.code)
		}
	}
	if host != "" {
		r.UpdateOption(dhcpv4.OptHostName(host))
	}
	short := ""
	if q.Class != ClassOther && q.MAC != nil && !q.NoProgram {
		if b, ok := ask(ctx, q.Client); ok {
			file, err := bootFile(q.Client, b)
			if err != nil {
				return nil, err
			}
			tellBoot(r, q.Client, file)
			short = q.short(b)
			if q.Class == ClassUEFI {
				// With option 60 and an address, EDK2 takes us for a BINL server and asks again on port 4011.
				// Without option 60 it loads the file at once.
				r.Options.Del(dhcpv4.OptionClassIdentifier)
			}
		}
	}
	viaRelay(r)
	// Behind the mask, always has the operator's own options. fit leaves out the last one first.
	for _, v := range t.always[1:] {
		spare = append(spare, v.code)
	}
	slices.Reverse(spare)
	return fit(r, limit(p), short, spare...)
}

// refusal is a NAK: RFC 2131 section 4.3.2, table 3.
func (s *leaseServer) refusal(p *dhcpv4.DHCPv4, q request, why Reason) *dhcpv4.DHCPv4 {
	r := blank(p, dhcpv4.MessageTypeNak, q.server)
	r.UpdateOption(dhcpv4.OptMessage(why.String()))
	viaRelay(r) // the client may have no valid address there, so the relay must broadcast the NAK
	return r
}

// leaseDestination returns where an answer of server mode goes: RFC 2131 section 4.1. src is where the packet
// came from.
func leaseDestination(c Client, p, r *dhcpv4.DHCPv4, src netip.AddrPort) netip.AddrPort {
	has := addr(p.ClientIPAddr)
	switch {
	case c.Relay.IsValid():
		return c.relayPort(src)
	case has.IsValid() && r.MessageType() != dhcpv4.MessageTypeNak:
		return netip.AddrPortFrom(has, clientPort)
	}
	// The broadcast flag does not matter: see destination.
	return netip.AddrPortFrom(broadcast, clientPort)
}
