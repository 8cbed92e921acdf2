package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

// A replyFunc takes the answer to one packet. r is nil when there is none. why is the reason for that, or for a NAK.
type replyFunc func(r *dhcpv4.DHCPv4, why Reason)

// A bootAsker says what a client should boot; ok is false for nothing.
type bootAsker func(ctx context.Context, c Client) (Boot, bool)

// serve answers one packet of server mode: RFC 2131 section 4.3. What must be on the
// disk first is carried later, by another goroutine.
func (s *authority) serve(ctx context.Context, p *dhcpv4.DHCPv4, c Client, from origin, ask bootAsker, reply replyFunc) {
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		reply(nil, Reason{Code: CodeNotRequest})
		return
	}
	g, why := s.locate(p, c, s.ours(from.to))
	if why.Code != "" {
		reply(nil, why)
		return
	}
	switch c.Type {
	case dhcpv4.MessageTypeDiscover:
		s.discover(ctx, p, g, from, ask, reply)
	case dhcpv4.MessageTypeRequest:
		s.request(ctx, p, g, from, ask, reply)
	case dhcpv4.MessageTypeDecline:
		s.decline(p, g, from, reply)
	case dhcpv4.MessageTypeRelease:
		s.release(p, g, from, reply)
	case dhcpv4.MessageTypeInform:
		s.inform(ctx, p, g, ask, reply)
	default:
		reply(nil, Reason{Code: CodeClientNever})
	}
}

// origin is how a packet came in.
type origin struct {
	from    netip.AddrPort
	to      netip.Addr // its destination
	ifindex int
}

func (s *authority) discover(ctx context.Context, p *dhcpv4.DHCPv4, g guest, from origin, ask bootAsker, reply replyFunc) {
	l, err := s.table.Offer(g.claim)
	if err != nil {
		s.scarce(g, err)
		reply(nil, because(err))
		return
	}
	if l.Doubtful {
		s.scarce(g, fmt.Errorf("%w but those that clients declined; %v is offered again", leases.ErrExhausted, l.Addr))
	}
	offer := func(l leases.Lease) {
		r, _, err := s.grant(ctx, p, g, dhcpv4.MessageTypeOffer, l.Addr, ask)
		switch {
		case err != nil:
			reply(nil, because(err))
		case l.Doubtful:
			reply(r, Reason{Code: CodeDoubtful})
		default:
			reply(r, Reason{})
		}
	}
	if s.prober == nil || !g.local || l.State == leases.Bound {
		offer(l)
		return
	}
	ctx = context.WithoutCancel(ctx)
	switch started, busy := s.prober.start(g.id, func() { s.probe(g, l, from.ifindex, offer, reply) }); {
	case started:
	case busy && g.claim.Known:
		offer(l) // a flood of strangers' questions keeps no known machine waiting
	default:
		reply(nil, Reason{Code: CodeProbing})
	}
}

// scarce tells the operator, once a minute, that clients get no address.
func (s *authority) scarce(g guest, err error) {
	now, before := s.now().UnixNano(), s.warned.Load()
	if time.Duration(now-before) >= time.Minute && s.warned.CompareAndSwap(before, now) {
		s.log.Warn("dhcp: clients get no address", "subnet", s.subnets[g.subnet].prefix, "mac", g.MAC.String(), "err", err)
	}
}

// probe offers the first address that nobody answers for.
func (s *authority) probe(g guest, l leases.Lease, ifindex int, offer func(leases.Lease), reply replyFunc) {
	var users []string
	for range 3 {
		mac, used := s.prober.used(ifindex, l.Addr)
		if !used || mac.String() == g.MAC.String() {
			offer(l)
			return
		}
		users = append(users, mac.String())
		taken := l.Addr
		if _, err := s.table.Decline(g.id, l.Addr, func(error) {}); err != nil {
			reply(nil, because(err))
			return
		}
		var err error
		if l, err = s.table.Offer(g.claim); err != nil {
			why := because(err)
			why.Addr, why.MAC = taken, mac
			reply(nil, why)
			return
		}
	}
	if slices.Sort(users); users[0] == users[len(users)-1] {
		// A router that answers ARP for others (RFC 1027), or one who lies: what it says is worth nothing.
		s.log.Warn("dhcp: one host answers for every address that is probed; it is not believed", "host", users[0], "subnet", s.subnets[g.subnet].prefix)
		offer(l)
		return
	}
	reply(nil, Reason{Code: CodeAllInUse})
}

// A request says how a REQUEST is meant: RFC 2131 section 4.3.2 and its table 4.
type request string

const (
	selecting  request = "selecting"
	initReboot request = "init-reboot"
	renewing   request = "renewing"
	rebinding  request = "rebinding"
	malformed  request = "malformed"
)

// meant tells the four apart, and which address the client wants.
func meant(p *dhcpv4.DHCPv4, unicast bool) (request, netip.Addr) {
	want, has := addr(p.RequestedIPAddress()), addr(p.ClientIPAddr)
	switch {
	case addr(p.ServerIdentifier()).IsValid() && want.IsValid():
		return selecting, want
	case addr(p.ServerIdentifier()).IsValid() && has.IsValid():
		return selecting, has // some clients put it there
	case addr(p.ServerIdentifier()).IsValid():
		return malformed, want
	case has.IsValid() && unicast && !addr(p.GatewayIPAddr).IsValid():
		return renewing, has
	case has.IsValid():
		return rebinding, has
	case want.IsValid():
		return initReboot, want
	}
	return malformed, want
}

func (s *authority) request(ctx context.Context, p *dhcpv4.DHCPv4, g guest, from origin, ask bootAsker, reply replyFunc) {
	state, want := meant(p, s.ours(from.to))
	if state == malformed {
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeRequest})
		return
	}
	if state == selecting && !s.isOurs(g.Selected, g) {
		s.table.Refuse(g.subnet, g.id)
		reply(nil, Reason{Code: CodeOtherServer, Other: g.Selected})
		return
	}
	nak := func(why Reason) { reply(s.refusal(p, g, why), why) }
	here := s.subnets[g.subnet].prefix
	own, had := s.table.Of(g.subnet, g.id)
	recorded := had && own.State != leases.Offered || g.claim.Reserved.IsValid()
	switch holder, held := s.table.At(want); {
	case !here.Contains(want) && state == renewing:
		reply(nil, Reason{Code: CodeNotOurs, Addr: want})
		return
	case !here.Contains(want):
		nak(Reason{Code: CodeWrongSubnet, Addr: want, Subnet: here})
		return
	case state == initReboot && !recorded && !(held && holder.Client != g.id):
		reply(nil, Reason{Code: CodeNoRecord}) // section 4.3.2: MUST remain silent
		return
	case state == initReboot && had && own.State == leases.Bound && own.Addr != want:
		nak(Reason{Code: CodeItsAddress, Addr: want, Other: own.Addr})
		return
	}
	g.claim.Renews = state == renewing || state == rebinding
	r, t, err := s.grant(ctx, p, g, dhcpv4.MessageTypeAck, want, ask)
	if err != nil {
		reply(nil, because(err))
		return
	}
	err = s.table.Bind(g.claim, want, s.now().Add(t), func(err error) {
		if err != nil {
			reply(nil, because(err))
			return
		}
		reply(r, Reason{})
	})
	switch {
	case err == nil:
	case errors.Is(err, leases.ErrBusy), errors.Is(err, leases.ErrClosed):
		reply(nil, because(err))
	case state == rebinding && !recorded && errors.Is(err, leases.ErrElsewhere):
		reply(nil, Reason{Code: CodePerhapsOther, Addr: want})
	default:
		why := because(err)
		why.Addr = want
		nak(why)
	}
}

func (s *authority) decline(p *dhcpv4.DHCPv4, g guest, from origin, reply replyFunc) {
	a := addr(p.RequestedIPAddress())
	switch {
	case !s.isOurs(g.Selected, g):
		reply(nil, Reason{Code: CodeDeclineOther, Other: g.Selected})
		return
	case !a.IsValid():
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeDecline})
		return
	}
	if s.prober != nil && g.local {
		// Anybody can decline in another's name. The client itself does not answer for what it declines.
		if started, _ := s.prober.start(g.id, func() {
			if mac, used := s.prober.used(from.ifindex, a); used && mac.String() == g.MAC.String() {
				reply(nil, Reason{Code: CodeDeclineSelf, Addr: a})
				return
			}
			s.outOfUse(g, a, reply)
		}); started {
			return
		}
	}
	s.outOfUse(g, a, reply)
}

// outOfUse keeps an address from clients for a while. A DECLINE is not answered.
func (s *authority) outOfUse(g guest, a netip.Addr, reply replyFunc) {
	freed := make(chan netip.Addr, 1) // the client's first declined address, which is known when the table has decided
	back, err := s.table.Decline(g.id, a, func(err error) {
		why := Reason{Code: CodeDeclined, Addr: a, Other: <-freed, Err: err}
		if err == nil && why.Other.IsValid() {
			why.Code = CodeDeclinedFreed
		}
		reply(nil, why)
	})
	switch {
	case errors.Is(err, leases.ErrNotGiven):
		reply(nil, Reason{Code: CodeDeclineUngiven, Addr: a})
	case err != nil:
		reply(nil, because(err))
	default:
		freed <- back
	}
}

func (s *authority) release(p *dhcpv4.DHCPv4, g guest, from origin, reply replyFunc) {
	a := addr(p.ClientIPAddr)
	switch {
	case !s.isOurs(g.Selected, g):
		reply(nil, Reason{Code: CodeReleaseOther, Other: g.Selected})
		return
	case !a.IsValid():
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeRelease})
		return
	case g.local && from.from.Addr().Unmap() != a:
		// RFC 2131 section 4.4.4: it is sent from the address, which a stranger must forge, too.
		reply(nil, Reason{Code: CodeReleaseFrom, Addr: a, Other: from.from.Addr()})
		return
	}
	ok, err := s.table.Release(g.id, a, func(err error) {
		if err != nil {
			reply(nil, because(err))
			return
		}
		reply(nil, Reason{Code: CodeReleased, Addr: a})
	})
	switch {
	case err != nil:
		reply(nil, because(err))
	case !ok:
		reply(nil, Reason{Code: CodeReleaseWrong, Addr: a})
	}
}

// inform tells a client with an address of its own about everything else: section 4.3.5.
func (s *authority) inform(ctx context.Context, p *dhcpv4.DHCPv4, g guest, ask bootAsker, reply replyFunc) {
	if !addr(p.ClientIPAddr).IsValid() {
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeInform})
		return
	}
	r, err := s.build(ctx, p, g, dhcpv4.MessageTypeAck, netip.Addr{}, 0, ask)
	if err != nil {
		reply(nil, because(err))
		return
	}
	reply(r, Reason{})
}

// isOurs says whether a server identifier means us.
func (s *authority) isOurs(id netip.Addr, g guest) bool {
	return s.ours(id) || id.IsValid() && id == g.server
}

// grant is an OFFER or ACK of an address, and for how long it is.
func (s *authority) grant(ctx context.Context, p *dhcpv4.DHCPv4, g guest, kind dhcpv4.MessageType, a netip.Addr, ask bootAsker) (*dhcpv4.DHCPv4, time.Duration, error) {
	t, _ := s.told(g)
	d := t.lease
	if b := p.GetOneOption(dhcpv4.OptionIPAddressLeaseTime); len(b) == 4 {
		// What the client asks for, if that is shorter than what it may have.
		d = min(d, max(time.Duration(binary.BigEndian.Uint32(b))*time.Second, minLease))
	}
	r, err := s.build(ctx, p, g, kind, a, d, ask)
	return r, d, err
}

// build is an answer that says all that the client should know. Without an address it
// is that to an INFORM, which must not speak of a lease.
func (s *authority) build(ctx context.Context, p *dhcpv4.DHCPv4, g guest, kind dhcpv4.MessageType, a netip.Addr, d time.Duration, ask bootAsker) (*dhcpv4.DHCPv4, error) {
	r := blank(p, kind, g.server)
	if a.IsValid() {
		r.YourIPAddr = a.AsSlice()
		seconds := func(code dhcpv4.OptionCode, d time.Duration) {
			r.UpdateOption(dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))))
		}
		seconds(dhcpv4.OptionIPAddressLeaseTime, d)
		seconds(dhcpv4.OptionRenewTimeValue, d/2) // section 4.4.5
		seconds(dhcpv4.OptionRebindingTimeValue, d*7/8)
	}
	t, host := s.told(g)
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
	if g.Class != ClassOther && g.MAC != nil && !g.NoProgram {
		if b, ok := ask(ctx, g.Client); ok {
			file, err := bootFile(g.Client, b)
			if err != nil {
				return nil, err
			}
			tellBoot(r, g.Client, file)
			short = g.short(b)
			if g.Class == ClassUEFI {
				// With option 60 and an address, EDK2 takes us for a BINL server and asks
				// again on port 4011; without, it loads the file at once.
				r.Options.Del(dhcpv4.OptionClassIdentifier)
			}
		}
	}
	viaRelay(r)
	for _, v := range t.always[1:] { // behind the mask, what the operator wrote, the last first
		spare = append(spare, v.code)
	}
	slices.Reverse(spare)
	return fit(r, limit(p), short, spare...)
}

// refusal is a NAK: section 4.3.2, table 3.
func (s *authority) refusal(p *dhcpv4.DHCPv4, g guest, why Reason) *dhcpv4.DHCPv4 {
	r := blank(p, dhcpv4.MessageTypeNak, g.server)
	r.UpdateOption(dhcpv4.OptMessage(why.String()))
	viaRelay(r) // the client may have no address there; it has its old one no more
	return r
}

// leaseDestination is where an answer goes: section 4.1. src is where the packet came from.
func leaseDestination(c Client, p, r *dhcpv4.DHCPv4, src netip.AddrPort) netip.AddrPort {
	has := addr(p.ClientIPAddr)
	switch {
	case c.Relay.IsValid():
		return c.relayPort(src)
	case has.IsValid() && r.MessageType() != dhcpv4.MessageTypeNak:
		return netip.AddrPortFrom(has, clientPort)
	}
	// Whatever the broadcast flag says, see destination.
	return netip.AddrPortFrom(broadcast, clientPort)
}
