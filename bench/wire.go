package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// A wire sends DHCP frames from any MAC and passes each answer to its client.
type wire struct {
	fd    int
	index int
	mu    sync.Mutex
	byMAC map[string]chan *dhcpv4.DHCPv4
}

const etherIPv4 = 0x0800

// toClients passes UDP to port 68 in IPv4 without options. Without it, the kernel would copy every block of
// every transfer to this socket, too.
var toClients = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 9}, // protocol
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 14 + 20 + 2}, // destination port
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 68, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func openWire(name string) (*wire, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	proto := uint16(etherIPv4<<8&0xff00 | etherIPv4>>8) // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(proto))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	// All clients share this one buffer; in a rack each has its own.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return nil, fmt.Errorf("packet socket: receive buffer: %w", err)
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(toClients)), Filter: &toClients[0]}); err != nil {
		return nil, fmt.Errorf("packet socket: filter: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: nic.Index}); err != nil {
		return nil, fmt.Errorf("packet socket: bind to %s: %w", name, err)
	}
	return &wire{fd: fd, index: nic.Index, byMAC: map[string]chan *dhcpv4.DHCPv4{}}, nil
}

// broadcast sends a DHCP packet from 0.0.0.0:68, like a machine without an address.
func (w *wire) broadcast(from net.HardwareAddr, dhcp []byte) error {
	const eth, ip, udp = 14, 20, 8
	f := make([]byte, eth+ip+udp, eth+ip+udp+len(dhcp))
	copy(f, "\xff\xff\xff\xff\xff\xff")
	copy(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], etherIPv4)
	h := f[eth:]
	h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(h[2:], uint16(ip+udp+len(dhcp)))
	copy(h[16:], "\xff\xff\xff\xff")
	var sum uint32
	for i := 0; i < ip; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16)) // RFC 791; one carry is enough for 20 bytes
	u := h[ip:]
	binary.BigEndian.PutUint16(u, 68)
	binary.BigEndian.PutUint16(u[2:], 67)
	binary.BigEndian.PutUint16(u[4:], uint16(udp+len(dhcp))) // the checksum is 0, none (RFC 768)
	w.mu.Lock()
	defer w.mu.Unlock()
	return unix.Sendto(w.fd, append(f, dhcp...), 0, &unix.SockaddrLinklayer{
		Ifindex: w.index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

// receive passes on answers until the process ends.
func (w *wire) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil || n < 14+20+8 {
			continue
		}
		h := buf[14:n]
		u := h[min(int(h[0]&15)*4, len(h)):]
		if h[9] != unix.IPPROTO_UDP || len(u) < 8 || binary.BigEndian.Uint16(u[2:]) != 68 {
			continue
		}
		p, err := dhcpv4.FromBytes(u[8:])
		if err != nil || p.MessageType() != dhcpv4.MessageTypeOffer {
			continue
		}
		if to, ok := w.byMAC[p.ClientHWAddr.String()]; ok {
			select {
			case to <- p:
			default:
			}
		}
	}
}
