package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A Packet is one DHCP packet of a capture.
type Packet struct {
	At       time.Time
	From     net.HardwareAddr
	Src, Dst netip.AddrPort
	DHCP     *dhcpv4.DHCPv4
}

// ReadDHCP reads the DHCP packets (ports 67, 68 and 4011) of a capture, which may still be growing.
func ReadDHCP(path string) ([]Packet, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	packets, err := readDHCP(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return packets, nil
}

const (
	pcapMagic     = 0xa1b2c3d4 // microseconds; draft-ietf-opsawg-pcap section 4
	pcapMagicNano = 0xa1b23c4d
	linkEthernet  = 1
	maxFrame      = 256 << 10 // tcpdump's largest snapshot
)

func readDHCP(r io.Reader) ([]Packet, error) {
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("pcap header: %w", err)
	}
	order, unit := binary.ByteOrder(binary.LittleEndian), time.Microsecond
	if m := binary.BigEndian.Uint32(head[:]); m == pcapMagic || m == pcapMagicNano {
		order = binary.BigEndian
	}
	switch magic := order.Uint32(head[:]); magic {
	case pcapMagic:
	case pcapMagicNano:
		unit = time.Nanosecond
	default:
		return nil, fmt.Errorf("pcap header: magic %08x, want %08x", magic, uint32(pcapMagic))
	}
	if link := order.Uint32(head[20:]); link != linkEthernet {
		return nil, fmt.Errorf("pcap header: link type %d, want %d (Ethernet)", link, linkEthernet)
	}
	var packets []Packet
	for {
		var rec [16]byte
		_, err := io.ReadFull(r, rec[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the rest is still being written
			return packets, nil
		}
		if err != nil {
			return nil, err
		}
		size := order.Uint32(rec[8:])
		if size > maxFrame {
			return nil, fmt.Errorf("packet %d: %d bytes, want at most %d", len(packets)+1, size, maxFrame)
		}
		frame := make([]byte, size)
		_, err = io.ReadFull(r, frame)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return packets, nil
		}
		if err != nil {
			return nil, err
		}
		if p, ok := parseFrame(frame); ok {
			p.At = time.Unix(int64(order.Uint32(rec[:])), int64(order.Uint32(rec[4:]))*int64(unit)).UTC()
			packets = append(packets, p)
		}
	}
}

// parseFrame reads an Ethernet frame; ok is false for what is not DHCP over IPv4.
func parseFrame(frame []byte) (p Packet, ok bool) {
	const etherLen, udpLen = 14, 8
	if len(frame) < etherLen+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return p, false
	}
	p.From = net.HardwareAddr(frame[6:12])
	ip := frame[etherLen:]
	headLen, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more fragments, or an offset
	if ip[0]>>4 != 4 || headLen < 20 || total < headLen+udpLen || total > len(ip) || ip[9] != 17 || fragment != 0 {
		return p, false
	}
	udp := ip[headLen:total]
	src, dst := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
	p.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), src)
	p.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), dst)
	if !dhcpPort(src) && !dhcpPort(dst) {
		return p, false
	}
	m, err := dhcpv4.FromBytes(udp[udpLen:])
	p.DHCP = m
	return p, err == nil
}

func dhcpPort(port uint16) bool { return port == 67 || port == 68 || port == 4011 }
