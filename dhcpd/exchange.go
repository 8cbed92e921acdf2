package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

// A replyFunc takes the answer to one packet; r is nil when there is none. why says why there is none, why it
// is a NAK, or what is special about it.
type replyFunc func(r *dhcpv4.DHCPv4, why Reason)

// A bootAsker says what a client should boot; ok is false when it should boot nothing.
type bootAsker func(ctx context.Context, c Client) (Boot, bool)

// serve answers one packet of server mode: RFC 2131 section 4.3. An answer whose lease must be on the disk
// first is sent later, by another goroutine.
func (s *leaseServer) serve(
	ctx context.Context, p *dhcpv4.DHCPv4, c Client, from origin, ask bootAsker, reply replyFunc,
) {
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		reply(nil, Reason{Code: CodeNotRequest})
		return
	}
	q, why := s.locate(p, c, s.ours(from.to))
	if why.Code != "" {
		reply(nil, why)
		return
	}
	switch c.Type {
	case dhcpv4.MessageTypeDiscover:
		s.discover(ctx, p, q, from, ask, reply)
	case dhcpv4.MessageTypeRequest:
		s.request(ctx, p, q, from, ask, reply)
	case dhcpv4.MessageTypeDecline:
		s.decline(p, q, from, reply)
	case dhcpv4.MessageTypeRelease:
		s.release(p, q, from, reply)
	case dhcpv4.MessageTypeInform:
		s.inform(ctx, p, q, ask, reply)
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

func (s *leaseServer) discover(
	ctx context.Context, p *dhcpv4.DHCPv4, q request, from origin, ask bootAsker, reply replyFunc,
) {
	l, err := s.table.Offer(q.claim)
	if err != nil {
		s.scarce(q, err)
		reply(nil, because(err))
		return
	}
	if l.Doubtful {
		s.scarce(q, fmt.Errorf("%w but those that clients declined; %v is offered again", leases.ErrExhausted,
			l.Addr))
	}
	offer := func(l leases.Lease) {
		r, _, err := s.grant(ctx, p, q, dhcpv4.MessageTypeOffer, l.Addr, ask)
		switch {
		case err != nil:
			reply(nil, because(err))
		case l.Doubtful:
			reply(r, Reason{Code: CodeDoubtful})
		default:
			reply(r, Reason{})
		}
	}
	if s.prober == nil || !q.local || l.State == leases.Bound {
		offer(l)
		return
	}
	ctx = context.WithoutCancel(ctx)
	switch started, busy := s.prober.start(q.id, func() { s.probe(q, l, from.ifindex, offer, reply) }); {
	case started:
	case busy && q.claim.Known:
		offer(l) // without a probe, so that a flood of strangers keeps no known machine waiting
	default:
		reply(nil, Reason{Code: CodeProbing})
	}
}

// scarce warns the operator that clients get no address, at most once a minute.
func (s *leaseServer) scarce(q request, err error) {
	if s.onceAMinute(&s.warned) {
		s.log.Warn("dhcp: clients get no address", "subnet", s.subnets[q.subnet].prefix,
			"mac", q.MAC.String(), "err", err)
	}
}

// onceAMinute says whether it has not said so for a minute. last is in nanoseconds of Unix time.
func (s *leaseServer) onceAMinute(last *atomic.Int64) bool {
	now, before := s.now().UnixNano(), last.Load()
	return time.Duration(now-before) >= time.Minute && last.CompareAndSwap(before, now)
}

// probe offers an address after it has asked by ARP that nobody uses it. It tries three.
func (s *leaseServer) probe(
	q request, l leases.Lease, ifindex int, offer func(leases.Lease), reply replyFunc,
) {
	var users []string
	for range 3 {
		mac, used := s.prober.used(ifindex, l.Addr)
		if !used || mac.String() == q.MAC.String() {
			offer(l)
			return
		}
		users = append(users, mac.String())
		taken := l.Addr
		if err := s.table.Decline(q.id, l.Addr, func(netip.Addr, error) {}); err != nil {
			reply(nil, because(err))
			return
		}
		var err error
		if l, err = s.table.Offer(q.claim); err != nil {
			why := because(err)
			why.Addr, why.MAC = taken, mac
			reply(nil, why)
			return
		}
	}
	if slices.Sort(users); users[0] == users[len(users)-1] {
		// One host answers for all three: a router that answers ARP for others (RFC 1027), or somebody who
		// forges answers. That does not prove that the addresses are in use.
		if s.onceAMinute(&s.warnedHost) {
			s.log.Warn("dhcp: one host answers for every address that is probed; it is not believed",
				"host", users[0], "subnet", s.subnets[q.subnet].prefix)
		}
		offer(l)
		return
	}
	reply(nil, Reason{Code: CodeAllInUse})
}

// A requestState says how a REQUEST is meant: RFC 2131 section 4.3.2 and its table 4.
type requestState string

const (
	selecting  requestState = "selecting"
	initReboot requestState = "init-reboot"
	renewing   requestState = "renewing"
	rebinding  requestState = "rebinding"
	malformed  requestState = "malformed"
)

// meant returns a REQUEST's state and the address that the client wants. unicast says that the packet was
// sent to our address and not broadcast.
func meant(p *dhcpv4.DHCPv4, unicast bool) (requestState, netip.Addr) {
	want, has := addr(p.RequestedIPAddress()), addr(p.ClientIPAddr)
	switch {
	case addr(p.ServerIdentifier()).IsValid() && want.IsValid():
		return selecting, want
	case addr(p.ServerIdentifier()).IsValid() && has.IsValid():
		return selecting, has // some clients put the address into ciaddr
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

func (s *leaseServer) request(
	ctx context.Context, p *dhcpv4.DHCPv4, q request, from origin, ask bootAsker, reply replyFunc,
) {
	state, want := meant(p, s.ours(from.to))
	if state == malformed {
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeRequest})
		return
	}
	if state == selecting && !s.isOurs(q.Selected, q) {
		s.table.Refuse(q.subnet, q.id)
		reply(nil, Reason{Code: CodeOtherServer, Other: q.Selected})
		return
	}
	nak := func(why Reason) { reply(s.refusal(p, q, why), why) }
	here := s.subnets[q.subnet].prefix
	own, had := s.table.Of(q.subnet, q.id)
	recorded := had && own.State != leases.Offered || q.claim.Reserved.IsValid()
	switch holder, held := s.table.At(want); {
	case !here.Contains(want) && state == renewing:
		reply(nil, Reason{Code: CodeNotOurs, Addr: want})
		return
	case !here.Contains(want):
		nak(Reason{Code: CodeWrongSubnet, Addr: want, Subnet: here})
		return
	case state == initReboot && !recorded && !(held && holder.Client != q.id):
		reply(nil, Reason{Code: CodeNoRecord}) // section 4.3.2: MUST remain silent
		return
	case state == initReboot && had && own.State == leases.Bound && own.Addr != want:
		nak(Reason{Code: CodeItsAddress, Addr: want, Other: own.Addr})
		return
	}
	q.claim.Renews = state == renewing || state == rebinding
	r, t, err := s.grant(ctx, p, q, dhcpv4.MessageTypeAck, want, ask)
	if err != nil {
		reply(nil, because(err))
		return
	}
	err = s.table.Bind(q.claim, want, s.now().Add(t), func(err error) {
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

func (s *leaseServer) decline(p *dhcpv4.DHCPv4, q request, from origin, reply replyFunc) {
	a := addr(p.RequestedIPAddress())
	switch {
	case !s.isOurs(q.Selected, q):
		reply(nil, Reason{Code: CodeDeclineOther, Other: q.Selected})
		return
	case !a.IsValid():
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeDecline})
		return
	}
	if s.prober != nil && q.local {
		// Anybody can send a DECLINE in another client's name. A client that really declines an address does
		// not answer ARP for it.
		started, busy := s.prober.start(q.id, func() {
			if mac, used := s.prober.used(from.ifindex, a); used && mac.String() == q.MAC.String() {
				reply(nil, Reason{Code: CodeDeclineSelf, Addr: a})
				return
			}
			s.outOfUse(q, a, reply)
		})
		if busy {
			// Somebody may keep all probes busy to have a forged DECLINE believed.
			reply(nil, Reason{Code: CodeDeclineUnproved, Addr: a})
		} else if !started {
			reply(nil, Reason{Code: CodeProbing})
		}
		return
	}
	s.outOfUse(q, a, reply)
}

// outOfUse keeps an address from clients for a while. A DECLINE is not answered.
func (s *leaseServer) outOfUse(q request, a netip.Addr, reply replyFunc) {
	err := s.table.Decline(q.id, a, func(back netip.Addr, err error) {
		why := Reason{Code: CodeDeclined, Addr: a, Other: back, Err: err}
		if err == nil && back.IsValid() {
			why.Code = CodeDeclinedFreed
		}
		reply(nil, why)
	})
	switch {
	case errors.Is(err, leases.ErrNotGiven):
		reply(nil, Reason{Code: CodeDeclineUngiven, Addr: a})
	case err != nil:
		reply(nil, because(err))
	}
}

func (s *leaseServer) release(p *dhcpv4.DHCPv4, q request, from origin, reply replyFunc) {
	a := addr(p.ClientIPAddr)
	switch {
	case !s.isOurs(q.Selected, q):
		reply(nil, Reason{Code: CodeReleaseOther, Other: q.Selected})
		return
	case !a.IsValid():
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeRelease})
		return
	case q.local && from.from.Addr().Unmap() != a:
		// RFC 2131 section 4.4.4: a client sends its RELEASE from the address. Strangers must forge it.
		reply(nil, Reason{Code: CodeReleaseFrom, Addr: a, Other: from.from.Addr()})
		return
	}
	ok, err := s.table.Release(q.id, a, func(err error) {
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

// inform gives a client that set its address itself all options but those of a lease: RFC 2131 section 4.3.5.
func (s *leaseServer) inform(
	ctx context.Context, p *dhcpv4.DHCPv4, q request, ask bootAsker, reply replyFunc,
) {
	if !addr(p.ClientIPAddr).IsValid() {
		reply(nil, Reason{Code: CodeNoAddress, Type: dhcpv4.MessageTypeInform})
		return
	}
	r, err := s.build(ctx, p, q, dhcpv4.MessageTypeAck, netip.Addr{}, 0, ask)
	if err != nil {
		reply(nil, because(err))
		return
	}
	reply(r, Reason{})
}

// isOurs says whether a server identifier means us.
func (s *leaseServer) isOurs(id netip.Addr, q request) bool {
	return s.ours(id) || id.IsValid() && id == q.server
}
