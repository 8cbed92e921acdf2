package e2e

import (
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// A rom emulates a ROM on eth0, which has no address yet.
type rom struct {
	how string
	mac net.HardwareAddr
}

// The options of a ROM: PXE 2.1 table 2-1.
var romOptions = []dhcpv4.Modifier{
	dhcpv4.WithBroadcast(true),
	dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
	dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(93), []byte{0, 0}),
	dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(94), []byte{1, 2, 1}),
	dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(97), append([]byte{0}, "a ROM of 16 byte"...)),
	dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1260)),
	dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionVendorSpecificInformation,
		dhcpv4.OptionClassIdentifier,
		dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName,
	),
}

// iPXE adds its user class and its features: HTTP (19), bzImage (24).
func ipxeOptions(features ...byte) []dhcpv4.Modifier {
	return append(slices.Clone(romOptions),
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), features),
	)
}

func (r *rom) boot() (got romBoot, err error) {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return got, err
	}
	r.mac = card.HardwareAddr
	options := romOptions
	if r.how == noBzImageROM {
		options = ipxeOptions(19, 1, 1)
	}
	var boot *dhcpv4.DHCPv4
	if got.Address, boot, err = r.dhcp(options...); err != nil {
		return got, err
	}
	// PXE 2.1 table 2-1, tag 6: bit 3 tells a ROM to load the boot file of this offer. iPXE loads it in any
	// case.
	control := dhcpv4.Options{}
	if err := control.FromBytes(boot.GetOneOption(dhcpv4.OptionVendorSpecificInformation)); err != nil {
		return got, fmt.Errorf("option 43 of the offer: %w", err)
	}
	direct := len(control.Get(dhcpv4.GenericOptionCode(6))) == 1 &&
		control.Get(dhcpv4.GenericOptionCode(6))[0]&8 != 0
	if r.how == insistingROM || r.how == plainROM && !direct {
		if boot, err = r.ask4011(got.Address, boot); err != nil {
			return got, err
		}
	}
	got.File = boot.BootFileName
	if got.Server, err = toAddr(boot.ServerIPAddr); err != nil {
		return got, fmt.Errorf("next server: %w", err)
	}
	switch r.how {
	case noBzImageROM:
		host := "tftp://" + got.Server.String() + "/"
		if !strings.HasPrefix(got.File, host) {
			return got, fmt.Errorf("boot file %q, want one below %s", got.File, host)
		}
		got.File = strings.TrimPrefix(got.File, host)
		got.Program, err = tftp(got.Server, got.File, 1432, false)
	case insistingROM:
		if _, err := tftp(got.Server, got.File, 1456, true); err != nil {
			return got, fmt.Errorf("ask for the size: %w", err)
		}
		got.Program, err = tftp(got.Server, got.File, 1456, false)
	default:
		got.Program, err = tftp(got.Server, got.File, 0, false)
	}
	if err != nil {
		return got, err
	}
	got.Script, err = r.program()
	return got, err
}

// program does what undionly.kpxe and ipxe.pxe do: DHCP once more, as iPXE, and the script.
func (r *rom) program() (string, error) {
	_, boot, err := r.dhcp(ipxeOptions(19, 1, 1, 24, 1, 1)...)
	if err != nil {
		return "", fmt.Errorf("iPXE: %w", err)
	}
	// iPXE fills in its settings; this one leaves out those that it does not have.
	text := boot.BootFileNameOption()
	for _, setting := range []struct{ name, value string }{{
		"netX/mac:hexhyp",
		strings.ReplaceAll(r.mac.String(), ":", "-"),
	}, {"buildarch", "i386"}, {"platform", "pcbios"}} {
		text = strings.ReplaceAll(text, "${"+setting.name+"}", setting.value)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	q := u.Query()
	for key := range q {
		if strings.Contains(q.Get(key), "${") {
			q.Del(key)
		}
	}
	u.RawQuery = q.Encode()
	resp, err := http.Get(u.String())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", u, resp.Status, body)
	}
	return string(body), err
}

// dhcp gets an address, which becomes eth0's, and the packet with the boot file: a proxy's offer, or the
// acknowledgement of a server that is both.
func (r *rom) dhcp(options ...dhcpv4.Modifier) (netip.Addr, *dhcpv4.DHCPv4, error) {
	ask, err := dhcpv4.NewDiscovery(r.mac, options...)
	if err != nil {
		return netip.Addr{}, nil, err
	}
	// Open it for this exchange only: it would also receive the TFTP transfers, and unread packets would fill
	// its buffer.
	raw, err := nclient4.NewRawUDPConn("eth0", nclient4.ClientPort)
	if err != nil {
		return netip.Addr{}, nil, err
	}
	defer raw.Close()
	var offer, boot *dhcpv4.DHCPv4
	err = exchange(raw, ask, func(p *dhcpv4.DHCPv4) bool {
		if p.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		if !p.YourIPAddr.IsUnspecified() {
			offer = p
		}
		if strings.HasPrefix(p.ClassIdentifier(), "PXEClient") {
			boot = p
		}
		return offer != nil && boot != nil
	})
	if err != nil {
		return netip.Addr{}, nil, err
	}
	if ask, err = dhcpv4.NewRequestFromOffer(offer, options...); err != nil {
		return netip.Addr{}, nil, err
	}
	var ack *dhcpv4.DHCPv4
	if err := exchange(raw, ask, func(p *dhcpv4.DHCPv4) bool {
		if p.MessageType() == dhcpv4.MessageTypeAck {
			ack = p
		}
		return ack != nil
	}); err != nil {
		return netip.Addr{}, nil, err
	}
	if boot == offer {
		boot = ack
	}
	if out, err := exec.Command("ip", "addr", "replace", ack.YourIPAddr.String()+"/24", "dev",
		"eth0").CombinedOutput(); err != nil {
		return netip.Addr{}, nil, fmt.Errorf("%w: %s", err, out)
	}
	address, err := toAddr(ack.YourIPAddr)
	return address, boot, err
}

// romPatience is the ROM's timeout for its first DISCOVER, PXE 2.1 section 2.2.5.
const romPatience = 4 * time.Second

func exchange(raw net.PacketConn, ask *dhcpv4.DHCPv4, done func(*dhcpv4.DHCPv4) bool) error {
	if _, err := raw.WriteTo(ask.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
		return err
	}
	if err := raw.SetReadDeadline(time.Now().Add(romPatience)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := raw.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("%s on port 67: not all answers in %s: %w", ask.MessageType(), romPatience, err)
		}
		p, err := dhcpv4.FromBytes(buf[:n])
		if err == nil && p.OpCode == dhcpv4.OpcodeBootReply && p.TransactionID == ask.TransactionID &&
			done(p) {
			return nil
		}
	}
}

// ask4011 asks the proxy for the boot file, from port 68 as ROMs do.
func (r *rom) ask4011(from netip.Addr, offer *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	server, err := toAddr(offer.ServerIdentifier())
	if err != nil {
		return nil, err
	}
	ask, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(r.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(from.AsSlice()),
	}, romOptions...)...)
	if err != nil {
		return nil, err
	}
	ask.SetUnicast()
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 68)),
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 4011)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(ask.ToBytes()); err != nil {
		return nil, err
	}
	buf := make([]byte, 1500)
	_ = conn.SetReadDeadline(time.Now().Add(romPatience))
	n, err := conn.Read(buf)
	if err != nil {
		return nil, fmt.Errorf("port 4011: %w", err)
	}
	p, err := dhcpv4.FromBytes(buf[:n])
	if err == nil && (p.MessageType() != dhcpv4.MessageTypeAck || p.TransactionID != ask.TransactionID) {
		err = fmt.Errorf("port 4011 answered with %s", p.Summary())
	}
	return p, err
}

// tftp loads a file in lock step, RFC 1350, with the given block size, RFC 2348. With sizeOnly it ends the
// transfer when it knows the size, as ROMs do before the download proper.
func tftp(server netip.Addr, file string, blksize int, sizeOnly bool) ([]byte, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := []byte("\x00\x01" + file + "\x00octet\x00")
	if sizeOnly {
		request = append(request, "tsize\x000\x00"...)
	}
	if blksize > 0 {
		request = append(request, fmt.Sprintf("blksize\x00%d\x00", blksize)...)
	}
	size := 512
	to := netip.AddrPortFrom(server, 69)
	send := func(b []byte) error { _, err := conn.WriteToUDPAddrPort(b, to); return err }
	if err := send(request); err != nil {
		return nil, err
	}
	var got []byte
	buf := make([]byte, 2048)
	for next := uint16(1); ; {
		_ = conn.SetReadDeadline(time.Now().Add(romPatience))
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return got, fmt.Errorf("TFTP %s after %d bytes: %w", file, len(got), err)
		}
		if n < 4 {
			return got, errors.New("TFTP: a short packet")
		}
		to = from
		switch op, block := bigendian.BigEndian.Uint16(buf), bigendian.BigEndian.Uint16(buf[2:]); {
		case op == 6 && sizeOnly: // OACK
			return nil, send([]byte("\x00\x05\x00\x00TFTP Aborted\x00"))
		case op == 6:
			size = blksize
			err = send([]byte{0, 4, 0, 0})
		case op == 3 && block == next:
			got = append(got, buf[4:n]...)
			next++
			if err := send([]byte{0, 4, buf[2], buf[3]}); err != nil || n-4 < size {
				return got, err
			}
		case op == 3: // sent again
			err = send([]byte{0, 4, buf[2], buf[3]})
		default:
			return got, fmt.Errorf("TFTP %s: answer %q", file, buf[:n])
		}
		if err != nil {
			return got, err
		}
	}
}

func toAddr(ip net.IP) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok {
		return a, fmt.Errorf("%q is no IPv4 address", ip)
	}
	return a, nil
}
