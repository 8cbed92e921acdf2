// Package pcap reads the captures that tcpdump writes.
package pcap

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A Datagram is one UDP packet in IPv4 of a capture.
type Datagram struct {
	At       time.Time
	From     net.HardwareAddr
	Src, Dst netip.AddrPort
	Payload  []byte
}

// A Packet is one DHCP packet of a capture.
type Packet struct {
	Datagram
	DHCP *dhcpv4.DHCPv4
}

// DHCP reads the DHCP packets (ports 67, 68 and 4011) of a capture, which may still be growing.
func DHCP(path string) ([]Packet, error) {
	datagrams, err := UDP(path)
	if err != nil {
		return nil, err
	}
	var packets []Packet
	for _, d := range datagrams {
		if !dhcpPort(d.Src.Port()) && !dhcpPort(d.Dst.Port()) {
			continue
		}
		if m, err := dhcpv4.FromBytes(d.Payload); err == nil {
			packets = append(packets, Packet{d, m})
		}
	}
	return packets, nil
}

func dhcpPort(port uint16) bool { return port == 67 || port == 68 || port == 4011 }

// UDP reads all UDP packets of a capture, which may still be growing.
func UDP(path string) ([]Datagram, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	datagrams, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return datagrams, nil
}

const maxFrame = 256 << 10 // tcpdump's largest snapshot

func read(r io.Reader) ([]Datagram, error) {
	file, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("pcap header: %w", err)
	}
	if file.LinkType() != layers.LinkTypeEthernet {
		return nil, fmt.Errorf("pcap header: link type %v, want Ethernet", file.LinkType())
	}
	file.SetSnaplen(maxFrame) // the header's own may be 4 GiB
	var datagrams []Datagram
	for {
		frame, info, err := file.ReadPacketData()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // tcpdump is still writing the rest
			return datagrams, nil
		}
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", len(datagrams)+1, err)
		}
		if d, ok := parse(frame); ok {
			d.At = info.Timestamp
			datagrams = append(datagrams, d)
		}
	}
}

// parse reads an Ethernet frame; ok is false unless it is a whole UDP packet in IPv4.
func parse(frame []byte) (d Datagram, ok bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	ether, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ether == nil || ip == nil || udp == nil || ip.Version != 4 || p.Metadata().Truncated {
		return d, false
	}
	end := func(ip net.IP, port layers.UDPPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), uint16(port))
	}
	return Datagram{
		From: ether.SrcMAC, Src: end(ip.SrcIP, udp.SrcPort), Dst: end(ip.DstIP, udp.DstPort),
		Payload: udp.Payload,
	}, true
}
