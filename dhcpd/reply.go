package dhcpd

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	fileLen = 127 // BOOTP's file field, less its NUL: RFC 2131 section 2
	// An IP datagram that every client takes (RFC 2131 section 2), and the largest that
	// fits Ethernet; less 28 bytes of IP and UDP headers.
	minMessage, maxMessage = 576 - 28, 1500 - 28
)

// Boot is what a client should load. Client.WantsURL says which of File and URL counts.
type Boot struct {
	File string // name of the network boot program on our TFTP server
	URL  string // http URL with an IP literal: a script for iPXE, a program for HTTP boot
	// Short is the URL of a script that leads to URL, for an iPXE whose answer has no room for URL. It is
	// optional, and ignored when it has more than 127 bytes.
	Short string
}

// errOwnAddress says that the interface has no IPv4 address of ours.
var errOwnAddress = errors.New("our own address is not known")

// A bootError says that a boot file or URL cannot be put into an answer.
type bootError struct{ error }

func badBoot(format string, args ...any) error { return bootError{fmt.Errorf(format, args...)} }

func (e bootError) Unwrap() error { return e.error }

// tooLong is the error of an answer that is longer than the client accepts.
type tooLong string

func (e tooLong) Error() string { return string(e) }

// answer builds the answer of proxy mode, in the form of the client's class. All have: type OFFER or ACK,
// yiaddr 0, siaddr and option 54 our address (iPXE tells proxies apart by 54, else siaddr, so they are kept
// equal), option 60, options 97, 61 and 82 as they came.
//
//	bios-pxe   file, 66, 67, and option 43 = 06 01 08 ff: "use the boot file given
//	           here, do not look for boot servers" (PXE 2.1 table 2-1, tag 6 bit 3).
//	uefi-pxe   file, 66, 67 and no option 43, in the offer as on port 4011.
//	           Without 43, every version of EDK2 takes the offer for a BINL one and
//	           asks port 4011. 43 would save that round trip, but EDK2 before 2017
//	           drops the first offer with it (tianocore bug 469; Dell T130, T430).
//	           EDK2 ignores the file in the offer; clients that never ask port 4011
//	           need it.
//	ipxe       file and 67 hold a URL; because of siaddr and a file, iPXE takes the
//	           offer without asking 4011. iPXE would resolve a bare name against
//	           what it thinks is the current directory.
//	uefi-http  67 holds the URL; EDK2 drops an offer without it, or without
//	           60=HTTPClient (HttpBootDhcp4.c).
func answer(p *dhcpv4.DHCPv4, c Client, b Boot) (*dhcpv4.DHCPv4, error) {
	if !c.Server.Is4() {
		return nil, errOwnAddress
	}
	file, err := bootFile(c, b)
	if err != nil {
		return nil, err
	}
	kind := dhcpv4.MessageTypeOffer
	if c.Type == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	r := blank(p, kind, c.Server)
	tellBoot(r, c, file)
	viaRelay(r)
	return fit(r, limit(p), c.short(b))
}

// viaRelay sets the broadcast flag of an answer without an address that goes through a relay: the relay has
// no address to send it to (RFC 1542 section 4.1.2).
func viaRelay(r *dhcpv4.DHCPv4) {
	if addr(r.GatewayIPAddr).IsValid() && !addr(r.YourIPAddr).IsValid() {
		r.SetBroadcast()
	}
}

// blank makes an answer that has only its type, sender and receiver, and the options that are echoed.
func blank(p *dhcpv4.DHCPv4, kind dhcpv4.MessageType, server netip.Addr) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        p.HWType,
		ClientHWAddr:  p.ClientHWAddr,
		TransactionID: p.TransactionID,
		Flags:         p.Flags,
		GatewayIPAddr: p.GatewayIPAddr.To4(),
		Options:       dhcpv4.Options{},
	}
	if kind == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = p.ClientIPAddr.To4() // RFC 2131 table 3: only in an ACK
	}
	// Some ROMs read only 312 bytes of options. The codec writes options in the order of their numbers, so
	// all that these ROMs need comes before the end of the file name (option 67).
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(server.AsSlice()))
	// 97: RFC 4578 section 2.3. 61: RFC 6842. 82: RFC 3046 section 2.2.
	for _, echo := range []dhcpv4.OptionCode{
		optGUID, dhcpv4.OptionClientIdentifier,
		dhcpv4.OptionRelayAgentInformation,
	} {
		if v := p.GetOneOption(echo); len(v) > 0 {
			r.UpdateOption(dhcpv4.OptGeneric(echo, v))
		}
	}
	return r
}

// tellBoot puts what to load into an answer, in the form of the client's class.
func tellBoot(r *dhcpv4.DHCPv4, c Client, file string) {
	class := "PXEClient"
	if c.Class == ClassHTTP {
		class = "HTTPClient"
	}
	r.ServerIPAddr = c.Server.AsSlice()
	r.UpdateOption(dhcpv4.OptClassIdentifier(class))
	r.UpdateOption(dhcpv4.OptBootFileName(file))
	if c.Class != ClassHTTP {
		r.ServerHostName = c.Server.String()
		r.UpdateOption(dhcpv4.OptTFTPServerName(c.Server.String()))
		if len(file) <= fileLen {
			r.BootFileName = file
		}
	}
	if c.Class == ClassBIOS {
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	}
}

// short is the script's URL for an answer that has no room for Boot.URL; "" for none.
func (c Client) short(b Boot) string {
	if c.Class != ClassHTTP && c.WantsURL() && len(b.Short) <= fileLen {
		return b.Short
	}
	return ""
}

// bootFile returns the file name or the URL that a client of this class must load.
func bootFile(c Client, b Boot) (string, error) {
	switch {
	case c.WantsURL() && b.URL != "":
		return b.URL, checkURL(b.URL)
	case c.Class == ClassHTTP, c.Class == ClassOwnIPXE:
		return "", fmt.Errorf("a client of class %s needs a URL and got none", c.Class)
	case b.File == "":
		return "", fmt.Errorf("a client of class %s needs the name of a boot file and got none", c.Class)
	case c.Class == ClassIPXE:
		u := (&url.URL{Scheme: "tftp", Host: c.Server.String(), Path: "/" + b.File}).String()
		return u, checkURL(u)
	case len(b.File) > fileLen:
		return "", badBoot("boot file name %q: %d bytes, at most %d fit", b.File, len(b.File), fileLen)
	case strings.ContainsRune(b.File, 0):
		return "", badBoot("boot file name %q: it would end at its NUL", b.File)
	}
	return b.File, nil
}

// checkURL refuses what clients could not use: firmware often has no DNS server, and
// option 67 ends at 255 bytes.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return badBoot("boot URL: %w", err)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return badBoot("boot URL %q: the host must be an IP address, for clients without DNS", s)
	}
	if len(s) > 255 {
		return badBoot("boot URL %q: %d bytes, at most 255 fit into option 67", s, len(s))
	}
	return nil
}

// limit returns the longest message that the client accepts, in bytes without the IP and UDP headers. Some
// clients count the whole IP datagram in option 57, others the message alone; limit takes the smaller
// reading.
func limit(p *dhcpv4.DHCPv4) int {
	size, err := p.MaxMessageSize()
	if err != nil {
		return minMessage
	}
	return min(max(int(size)-28, minMessage), maxMessage)
}

// fit shortens an answer to limit bytes. It leaves out options that other fields repeat, then takes the short
// URL, which fits the file field, and then leaves out the spare options, the first one first.
func fit(r *dhcpv4.DHCPv4, limit int, short string, spare ...dhcpv4.OptionCode) (*dhcpv4.DHCPv4, error) {
	redundant := []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionTFTPServerName}
	if r.BootFileName != "" {
		redundant = append(redundant, dhcpv4.OptionBootfileName)
	}
	for {
		size := size(r)
		switch {
		case size+1 <= limit: // one byte for the pad option that encode may add
			return r, nil
		case len(redundant) > 0:
			r.Options.Del(redundant[0])
			redundant = redundant[1:]
		case short != "" && r.Options.Has(dhcpv4.OptionBootfileName):
			r.Options.Del(dhcpv4.OptionBootfileName)
			r.BootFileName = short
		case len(spare) > 0:
			r.Options.Del(spare[0])
			spare = spare[1:]
		default:
			return nil, tooLong(fmt.Sprintf(
				"the answer has %d bytes and the client takes %d; its relay's option 82 has %d of them",
				size, limit, len(r.GetOneOption(dhcpv4.OptionRelayAgentInformation))))
		}
	}
}

// size counts the bytes that the codec makes of an answer, without padding. Encoding each answer once more to
// count them took a tenth of the time of an exchange (BenchmarkExchange).
func size(r *dhcpv4.DHCPv4) int {
	n := 240 + 1 // the fixed fields with the magic cookie, and the end option
	for _, v := range r.Options {
		n += len(v) + 2*max(1, (len(v)+254)/255) // RFC 3396: longer values are split
	}
	return n
}

// destination returns where an answer of proxy mode goes. src is where the packet came from.
func destination(c Client, src netip.AddrPort) netip.AddrPort {
	switch {
	case c.Port == pxePort:
		if !src.Addr().IsValid() || src.Addr().IsUnspecified() {
			return netip.AddrPortFrom(broadcast, clientPort)
		}
		// From port 4011 (EDK2) or 68 (iPXE); both already have an address.
		return src
	case c.Relay.IsValid():
		return c.relayPort(src)
	case c.Type == dhcpv4.MessageTypeRequest && src.Addr().IsValid() && !src.Addr().IsUnspecified():
		return netip.AddrPortFrom(src.Addr(), clientPort)
	}
	// The broadcast flag does not matter: a client without an address answers no ARP, and every boot client
	// accepts a broadcast.
	return netip.AddrPortFrom(broadcast, clientPort)
}

// relayPort returns where a relay takes answers. The address is giaddr, since a relay may send from another
// of its addresses. The port is 67, or the one that the relay sent from if it says so (RFC 8357).
func (c Client) relayPort(src netip.AddrPort) netip.AddrPort {
	if c.RelayPort {
		return netip.AddrPortFrom(c.Relay, src.Port())
	}
	return netip.AddrPortFrom(c.Relay, dhcpPort)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
