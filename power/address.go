package power

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Port is the UDP port of a BMC whose address names none: asf-rmcp, IPMI 2.0 section 13.1.2.
const Port = 623

// ParseAddress reads the address of a BMC: an IP address, or one with a port; without one the port is Port.
// It takes no host names, because a BMC must be reachable when name service is not.
func ParseAddress(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		bare := s
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			bare = s[1 : len(s)-1]
		}
		ip, err := netip.ParseAddr(bare)
		if err != nil {
			return netip.AddrPort{},
				fmt.Errorf("BMC address %q: want an IP address like 192.0.2.7, 192.0.2.7:6230 or "+
					"[2001:db8::7]:6230, and no host name: it must be reached when name service is not", s)
		}
		ap = netip.AddrPortFrom(ip, Port)
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	switch ip := ap.Addr(); {
	case ap.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("BMC address %q: port 0", s)
	case ip.IsUnspecified(), ip.IsMulticast(), thisNetwork.Contains(ip), reserved.Contains(ip):
		return netip.AddrPort{}, fmt.Errorf("BMC address %q: not the address of one controller", s)
	}
	return ap, nil
}

// No host has an address in these networks: RFC 1122 section 3.2.1.3 (a) and RFC 1112 section 4. The second
// one includes the broadcast address.
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
)

// Canonical returns the one form in which an address is kept and compared: ::ffff:192.0.2.7, 192.0.2.7:623
// and 192.0.2.7 are one BMC. It leaves the port out when that is Port.
func Canonical(s string) (string, error) {
	ap, err := ParseAddress(s)
	switch {
	case err != nil:
		return "", err
	case ap.Port() == Port:
		return ap.Addr().String(), nil
	}
	return ap.String(), nil
}

// Limits of IPMI 2.0, in bytes: sections 22.28 (Set User Name), 22.30 (Set User Password) and 22.25 (Set
// Channel Security Keys).
const (
	maxUser     = 16
	maxPassword = 20
	maxKg       = 20
)

// CheckUser refuses a user name that is too long for IPMI.
func CheckUser(name string) error {
	if len(name) > maxUser {
		return fmt.Errorf("BMC user %q: %d bytes, IPMI takes %d at most", name[:min(len(name), 40)],
			len(name), maxUser)
	}
	return nil
}

// CheckPassword refuses a password that is too long for IPMI. The error does not contain it.
func CheckPassword(password string) error {
	if len(password) > maxPassword {
		return fmt.Errorf("BMC password: %d bytes, IPMI takes %d at most", len(password), maxPassword)
	}
	return nil
}

// ParseKg reads the key K_g as people write it: text of up to 20 bytes, or 0x and up to 40 hexadecimal
// digits, as ipmitool's -k and -y take them. The error does not contain the key.
func ParseKg(s string) (string, error) {
	key := s
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return "", errors.New("BMC key K_g: behind 0x, want pairs of hexadecimal digits")
		}
		key = string(b)
	}
	return key, CheckKg(key)
}

// CheckKg refuses a key that is too long for IPMI, or all zero.
func CheckKg(key string) error {
	switch {
	case len(key) > maxKg:
		return fmt.Errorf("BMC key K_g: %d bytes, IPMI takes %d at most", len(key), maxKg)
	case key != "" && strings.Trim(key, "\x00") == "":
		return errors.New("BMC key K_g: all zero, which BMCs take for none (IPMI 2.0 section 13.33): " +
			"leave it out")
	}
	return nil
}
