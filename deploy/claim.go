package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/internal/subnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A verdict says how a reported BMC address is taken. The agent that reports it may be anybody's.
type verdict string

const (
	claimNone    verdict = "none"    // nothing was reported, or nothing new
	claimSame    verdict = "same"    // it is the accepted one
	claimAccept  verdict = "accept"  // bmc.trust_reported accepts it
	claimPropose verdict = "propose" // an operator has to accept it
	claimRefuse  verdict = "refuse"  // it is not believed
)

// A claim is a reported BMC address, with all that decides its verdict.
type claim struct {
	reported string                  // as the agent sent it
	machine  inventory.Machine       // whose agent reports it
	trust    bool                    // bmc.trust_reported
	own      []netip.Prefix          // the appliance's interfaces
	holder   func(netip.Addr) string // the other machine whose BMC is there, or ""
}

// judge returns the verdict, the address in its canonical form, and the reason of a claimRefuse.
func (c claim) judge() (v verdict, address, why string) {
	if c.reported == "" {
		return claimNone, "", ""
	}
	ip, err := reportedAddress(c.reported)
	if err != nil {
		return claimRefuse, "", err.Error()
	}
	address = ip.String()
	m := c.machine.BMC
	accepted, _ := power.ParseAddress(m.Address)
	if accepted.Addr() == ip {
		return claimSame, address, "" // on whichever port the operator gave
	}
	if why := unfit(ip, c.own); why != "" {
		return claimRefuse, address, why
	}
	if other := c.holder(ip); other != "" {
		// Otherwise one machine could have another one's power switched.
		return claimRefuse, address, "it is " + other + "'s"
	}
	switch byHand := m.Address != "" && !m.Discovered; {
	case address == m.Declined:
		return claimNone, address, ""
	case c.trust && !byHand && c.machine.State != inventory.Discovered:
		return claimAccept, address, ""
	}
	return claimPropose, address, ""
}

// reportedAddress parses what an agent says: an IP address and nothing else.
func reportedAddress(s string) (netip.Addr, error) {
	const longest = 64 // no address is that long; an IPv6 zone could be
	if len(s) > longest {
		return netip.Addr{}, fmt.Errorf("%q… is no IP address", s[:longest])
	}
	if _, err := netip.ParseAddrPort(s); err == nil {
		return netip.Addr{}, errors.New("a report carries no port")
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is no IP address", s)
	}
	return ip.Unmap(), nil
}

// unfit says why a BMC cannot be at an address that an agent reports; own are the appliance's interfaces.
func unfit(ip netip.Addr, own []netip.Prefix) string {
	switch {
	case ip.IsLoopback():
		return "it is a loopback address"
	case ip.IsLinkLocalUnicast() || ip.Zone() != "":
		return "it is a link-local address"
	}
	if _, err := power.ParseAddress(ip.String()); err != nil {
		return "it is not the address of one controller"
	}
	for _, p := range own {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
		switch {
		case p.Addr() == ip:
			return "it is an address of this appliance"
		case ip.Is4() && p.IsValid() && p.Bits() < 31 &&
			(ip == p.Masked().Addr() || ip == subnet.Broadcast(p)):
			return "it is the broadcast address of " + p.Masked().String()
		}
	}
	return ""
}

// reachable returns why an operator's address cannot be a BMC's, or nil. An address with a port of its own
// may be anywhere: virtual BMCs also run on the appliance.
func reachable(address string, own []netip.Prefix) error {
	at, err := power.ParseAddress(address)
	if err != nil || at.Port() != power.Port || at.Addr().IsLinkLocalUnicast() {
		return nil
	}
	if why := unfit(at.Addr(), own); why != "" {
		return &inventory.Problem{
			Code: inventory.CodeInvalid, Detail: "BMC " + address + ": " + why,
			Hint: "give the address of the machine's management controller; " +
				"that of a virtual one on this host has a port: " +
				netip.AddrPortFrom(at.Addr(), 6230).String(),
		}
	}
	return nil
}

// claimed applies an agent's report of its BMC to the machine, and returns the events that say so.
func (w *worker) claimed(m *inventory.Machine, rep *inventory.BMCReport) []inventory.Event {
	c := claim{
		reported: rep.Address, machine: *m, trust: w.e.cfg.TrustReportedBMC, own: w.e.interfaces(),
		holder: w.holderOf,
	}
	v, address, why := c.judge()
	rep.Address = address
	said := func(format string, args ...any) []inventory.Event {
		return []inventory.Event{
			{
				Kind: inventory.KindBMC,
				Wire: true,
				Text: fmt.Sprintf(format, args...),
				Data: map[string]string{inventory.DataVerdict: string(v), inventory.DataReported: address},
			},
		}
	}
	switch v {
	case claimSame:
		m.BMC.Proposed = nil
	case claimAccept:
		before := m.BMC.Address
		acceptBMC(&m.BMC, address)
		if before != "" {
			return said("the agent found the BMC at %s instead of %s; bmc.trust_reported accepts it", address,
				before)
		}
		return said("the agent found the BMC at %s; bmc.trust_reported accepts it", address)
	case claimPropose:
		if p := m.BMC.Proposed; p != nil && p.Address == address {
			return nil
		}
		m.BMC.Proposed = &inventory.BMCProposal{Address: address, At: w.now()}
		if m.Boot != nil {
			m.BMC.Proposed.From = m.Boot.IP
		}
		if m.State == inventory.Discovered {
			return said("the agent found the BMC at %s; an approval that names it accepts it", address)
		}
		return said("%s: `%s`", diagnose.UnacceptedBMC(*m), diagnose.AcceptCommand(*m))
	case claimRefuse:
		shown := cmp.Or(address, "an address")
		return said("the agent claims the BMC at %s, which is not believed: %s", shown, why)
	}
	return nil
}

// acceptBMC makes a reported address the machine's BMC address.
func acceptBMC(b *inventory.BMC, address string) {
	b.Address, b.Discovered, b.Proposed, b.Declined, b.Error, b.Refused = address, true, nil, "", "", false
}

// acceptable returns why the proposed address that the operator saw cannot be accepted now, or nil. The
// proposal may have changed since, or the address may have become another machine's or our own.
func (w *worker) acceptable(m inventory.Machine, seen string) error {
	no := func(hint, format string, args ...any) error {
		return &inventory.Problem{
			Code: inventory.CodeConflict, Detail: m.Name + ": " + fmt.Sprintf(format, args...), Hint: hint,
		}
	}
	look := "`pxectl machine show " + m.Name +
		"` says what is reported, since when and from where; `pxectl machine edit " + m.Name +
		" --bmc IP` sets the right one by hand"
	p := m.BMC.Proposed
	switch {
	case p == nil && m.BMC.Address == seen && seen != "":
		return nil // accepted already, which is no error
	case p == nil:
		return no(look, "BMC %q does not wait to be accepted; the accepted one is %s", seen,
			cmp.Or(m.BMC.Address, "none"))
	case p.Address != seen:
		return no(look, "the agent reports the BMC at %s now, and not at %q", p.Address, seen)
	}
	at, err := power.ParseAddress(p.Address)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if why := unfit(at.Addr(), w.e.interfaces()); why != "" {
		return no("set the right one with `pxectl machine edit "+m.Name+" --bmc IP`", "BMC %s: %s", p.Address,
			why)
	}
	if other := w.holderOf(at.Addr()); other != "" {
		hint := "is that right? `pxectl machine show " + other +
			"`; a machine is let in without its BMC by `pxectl machine approve " + m.Name + " --no-bmc`"
		return no(hint, "BMC %s is %s's", p.Address, other)
	}
	return nil
}

// interfaces are the appliance's own addresses with their networks.
func (e *Engine) interfaces() []netip.Prefix {
	if e.cfg.Interfaces == nil {
		return nil
	}
	return e.cfg.Interfaces()
}

// holderOf names another machine whose accepted BMC has this address, on any port; "" when there is none.
func (w *worker) holderOf(ip netip.Addr) string {
	w.e.mu.RLock()
	defer w.e.mu.RUnlock()
	for id, other := range w.e.workers {
		m := other.snap.Load().m
		if id == w.id || m.BMC.Address == "" {
			continue
		}
		if at, err := power.ParseAddress(m.BMC.Address); err == nil && at.Addr() == ip {
			return m.Name
		}
	}
	return ""
}

// tidyBMCs brings machines that an older pxectl has stored to today's rules: each address in its canonical
// form, no reported address accepted for a stranger, and one machine for each BMC. An address that cannot be
// parsed stays as it is. An address that a machine loses becomes a proposal. tidyBMCs changes the machines in
// all, and returns the changed ones.
func tidyBMCs(all []inventory.Machine) (changed []inventory.Machine) {
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	// Of several machines with one BMC, one that an operator gave it to keeps it, else the oldest.
	slices.SortFunc(order, func(a, b int) int {
		x, y := all[a], all[b]
		if x.BMC.Discovered != y.BMC.Discovered {
			if y.BMC.Discovered {
				return -1
			}
			return 1
		}
		return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), strings.Compare(string(x.ID), string(y.ID)))
	})
	held := map[string]bool{}
	for _, i := range order {
		m := &all[i]
		before := m.BMC
		if address, err := power.Canonical(m.BMC.Address); err == nil {
			m.BMC.Address = address
		}
		if m.BMC.Address == "" {
			continue
		}
		if m.State == inventory.Discovered && m.BMC.Discovered || held[m.BMC.Address] {
			m.BMC.Proposed = &inventory.BMCProposal{Address: m.BMC.Address, At: m.ReportedAt}
			m.BMC.Address, m.BMC.Discovered = "", false
		} else {
			held[m.BMC.Address] = true
		}
		if m.BMC.Address != before.Address {
			changed = append(changed, *m)
		}
	}
	return changed
}

// parsedBMC returns a report about the BMC with netmask, gateway and MAC in canonical form, or "" where they
// are malformed. The address is left to claim.judge.
func parsedBMC(r inventory.BMCReport) inventory.BMCReport {
	for _, field := range []*string{&r.Netmask, &r.Gateway} {
		ip, err := reportedAddress(*field)
		if err != nil {
			*field = ""
			continue
		}
		*field = ip.String()
	}
	if mac, err := inventory.ParseMAC(string(r.MAC)); err == nil {
		r.MAC = mac
	} else {
		r.MAC = ""
	}
	return r
}
