// Package subnet knows the addresses of an IPv4 network that are no host's.
package subnet

import "net/netip"

// Broadcast is the last address of an IPv4 network: RFC 919 section 7.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}
