package power

import (
	"fmt"
	"net/netip"
	"strings"
)

// Port is where a BMC listens unless the address says otherwise: asf-rmcp, IPMI 2.0 section 13.1.2.
const Port = 623

// ParseAddress reads the address of a BMC: an IP address, or one with a port. A BMC is named by number,
// since it must be reachable when name service is not.
func ParseAddress(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		bare := s
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			bare = s[1 : len(s)-1]
		}
		ip, err := netip.ParseAddr(bare)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("BMC address %q: want an IP address like 192.0.2.7, 192.0.2.7:6230 or [2001:db8::7]:6230", s)
		}
		ap = netip.AddrPortFrom(ip, Port)
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	switch ip := ap.Addr(); {
	case ap.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("BMC address %q: port 0", s)
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.AddrPort{}, fmt.Errorf("BMC address %q: not the address of one controller", s)
	}
	return ap, nil
}
