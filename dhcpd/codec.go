package dhcpd

import (
	"bytes"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	optionsAt = 240 // where options begin: the fixed fields and the magic cookie
	pad, end  = 0, 255
	minBOOTP  = 300 // RFC 951: the codec fills up to it
)

// parse reads a packet as leniently as dnsmasq does: options count up to the first that is cut off, and the
// end option may be missing, as in packets of some ROMs and relays. odd says what is wrong with it.
func parse(raw []byte) (p *dhcpv4.DHCPv4, odd string, err error) {
	if len(raw) > optionsAt {
		raw, odd = whole(raw)
	} else if len(raw) == optionsAt {
		raw, odd = append(bytes.Clone(raw), end), "no options"
	}
	p, err = dhcpv4.FromBytes(raw)
	return p, odd, err
}

// whole returns the packet with its options complete and ended.
func whole(raw []byte) (mended []byte, odd string) {
	at := optionsAt
	for at < len(raw) && raw[at] != end {
		if raw[at] == pad {
			at++
			continue
		}
		if at+2 > len(raw) || at+2+int(raw[at+1]) > len(raw) {
			return append(bytes.Clone(raw[:at]),
				end), fmt.Sprintf("option %d goes on behind the packet's end", raw[at])
		}
		at += 2 + int(raw[at+1])
	}
	if at < len(raw) {
		return raw, ""
	}
	return append(bytes.Clone(raw), end), "no end option"
}

// encode is an answer as it is sent. BIOS ROMs are known that read the file name of option 67 past its end,
// up to a NUL, and ask TFTP for the name and the next option's bytes; so a pad option follows it. A NUL in
// the option itself would end the name in a request that goes by its length.
func encode(r *dhcpv4.DHCPv4, c Client) []byte {
	raw := r.ToBytes()
	if c.Class != ClassBIOS {
		return raw
	}
	for at := optionsAt; at < len(raw) && raw[at] != end; at += 2 + int(raw[at+1]) {
		if raw[at] == byte(dhcpv4.OptionBootfileName.Code()) {
			behind := at + 2 + int(raw[at+1])
			padded := append(append(bytes.Clone(raw[:behind]), pad), raw[behind:]...)
			if len(raw) == minBOOTP && raw[len(raw)-1] == pad {
				padded = padded[:minBOOTP]
			}
			return padded
		}
	}
	return raw
}
