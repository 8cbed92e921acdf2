package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// AskFor is how long Ask waits for offers. Servers ping an address before they offer it: ISC dhcpd for a
// second, dnsmasq for three (PING_WAIT in its config.h).
const AskFor = 4500 * time.Millisecond

// Ask broadcasts one DISCOVER of a UEFI machine with the MAC of the interface's own card, and returns what
// other servers offer. It takes AskFor, or until the context's deadline if that is earlier. It accepts none
// of the offers. A server of this same process or host does not hear it, since packet sockets are not looped
// back.
func Ask(ctx context.Context, name string) ([]Overheard, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("dhcp: ask on %s: %w", name, err)
	}
	if len(nic.HardwareAddr) != 6 {
		return nil, fmt.Errorf("dhcp: ask on %s: it has no Ethernet address", name)
	}
	tap, err := openTap(name)
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	p, err := dhcpv4.NewDiscovery(nic.HardwareAddr, dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(optArch, []byte{0, byte(ArchUEFI64)})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16})),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName,
			dhcpv4.OptionVendorSpecificInformation))
	if err != nil {
		return nil, fmt.Errorf("dhcp: ask on %s: %w", name, err)
	}
	if _, err := tap.WriteTo(datagram(p.ToBytes()), &packet.Addr{HardwareAddr: everybody}); err != nil {
		return nil, fmt.Errorf("dhcp: ask on %s: %w", name, err)
	}
	return answers(ctx, tap, name, p.TransactionID)
}

// answers collects the offers to one DISCOVER.
func answers(
	ctx context.Context, tap *packet.Conn, name string, xid dhcpv4.TransactionID,
) ([]Overheard, error) {
	deadline := time.Now().Add(AskFor)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := tap.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var all []Overheard
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := tap.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return all, nil
		case err != nil:
			return all, fmt.Errorf("dhcp: ask on %s: %w", name, err)
		}
		if o, err := parseOverheard(buf[:n]); err == nil && o.XID == xid {
			o.Time, o.Interface, o.From = time.Now(), name, sender(from)
			all = append(all, o)
		}
	}
	return all, ctx.Err()
}

// everybody is Ethernet's broadcast address.
var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// datagram puts a client's message into UDP and IPv4 (RFC 768, RFC 791), from 0.0.0.0 to 255.255.255.255. It
// leaves out UDP's checksum, as IPv4 allows.
func datagram(message []byte) []byte {
	p := make([]byte, 28, 28+len(message))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(message)))
	copy(p[16:], net.IPv4bcast.To4())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(p[20:], clientPort)
	binary.BigEndian.PutUint16(p[22:], dhcpPort)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(message)))
	return append(p, message...)
}
