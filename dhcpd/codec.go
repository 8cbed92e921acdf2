package dhcpd

import (
	"bytes"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	optionsAt = 240 // where options begin: the fixed fields and the magic cookie
	pad, end  = 0, 255
	minBOOTP  = 300 // RFC 951: the codec pads messages to this length
)

// parse reads a packet as leniently as dnsmasq does: it reads options up to the first that is cut off, and
// the end option may be missing, as in packets of some ROMs and relays. odd says what is wrong with the
// packet, "" for nothing.
func parse(raw []byte) (p *dhcpv4.DHCPv4, odd string, err error) {
	if len(raw) > optionsAt {
		raw, odd = whole(raw)
	} else if len(raw) == optionsAt {
		raw, odd = append(bytes.Clone(raw), end), "no options"
	}
	p, err = dhcpv4.FromBytes(raw)
	return p, odd, err
}

// whole returns the packet without a cut-off option and with an end option. odd says what was wrong.
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

// encode returns an answer as it is sent. Some BIOS ROMs read the file name of option 67 past the option's
// end, up to a NUL, and ask TFTP for the name with the next option's bytes behind it. So encode puts a pad
// option, which is a NUL, behind option 67. The NUL is not part of option 67: a ROM that goes by the option's
// length would copy it into its TFTP request, where it ends the name too early.
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
