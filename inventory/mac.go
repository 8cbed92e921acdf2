package inventory

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
)

// A MAC is a hardware address of six octets, lower case with colons: "52:54:00:12:34:56".
type MAC string

// separators is made once, since ParseMAC runs several times for every DHCP packet.
var separators = strings.NewReplacer(":", "", "-", "", ".", "")

// ParseMAC reads the forms that firmware, iPXE and people write (colons, hyphens, dots or nothing between the
// digits, a leading "01-" as in BOOTIF). It refuses addresses that cannot be a machine's own: all zero,
// broadcast and multicast.
func ParseMAC(s string) (MAC, error) {
	digits := separators.Replace(strings.TrimSpace(s))
	// PXELINUX's BOOTIF puts the ARP hardware type (01, Ethernet) before the address.
	if len(digits) == 14 && strings.HasPrefix(digits, "01") {
		digits = digits[2:]
	}
	if len(digits) != 12 {
		return "", fmt.Errorf("MAC address %.40q: want six octets like 52:54:00:12:34:56", s)
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return "", fmt.Errorf("MAC address %.40q: not hexadecimal", s)
	}
	hw := [6]byte(raw)
	switch {
	case hw == [6]byte{}:
		return "", fmt.Errorf("MAC address %.40q: all zero", s)
	case hw[0]&1 == 1:
		return "", fmt.Errorf("MAC address %.40q: multicast or broadcast, not a machine's own", s)
	}
	return MAC(net.HardwareAddr(hw[:]).String()), nil
}

// Hyphens is the form of iPXE's hexhyp and of BOOTIF: "52-54-00-12-34-56".
func (m MAC) Hyphens() string { return strings.ReplaceAll(string(m), ":", "-") }
