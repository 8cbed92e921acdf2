package pcap

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	pcapMagic     = 0xa1b2c3d4 // microseconds; draft-ietf-opsawg-pcap section 4
	pcapMagicNano = 0xa1b23c4d
	linkEthernet  = 1
)

// pcapOf is a capture of frames, one a second.
func pcapOf(order binary.AppendByteOrder, magic uint32, frames ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2) // version 2.4
	b = order.AppendUint16(b, 4)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // zone, accuracy
	b = order.AppendUint32(b, 262144)
	b = order.AppendUint32(b, linkEthernet)
	for i, f := range frames {
		b = order.AppendUint32(b, uint32(1000+i))
		b = order.AppendUint32(b, 5)
		b = order.AppendUint32(b, uint32(len(f)))
		b = order.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

func frameOf(src, dst netip.AddrPort, payload []byte) []byte {
	f := append(bytes.Repeat([]byte{0xff}, 6), 0x52, 0x54, 0, 0x77, 0, 1, 0x08, 0x00)
	f = append(f, 0x45, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(20+8+len(payload)))
	f = append(f, 0, 0, 0, 0, 64, 17, 0, 0)
	f = append(f, src.Addr().AsSlice()...)
	f = append(f, dst.Addr().AsSlice()...)
	f = binary.BigEndian.AppendUint16(f, src.Port())
	f = binary.BigEndian.AppendUint16(f, dst.Port())
	f = binary.BigEndian.AppendUint16(f, uint16(8+len(payload)))
	return append(append(f, 0, 0), payload...)
}

func discoverFrame(t testing.TB, port uint16) []byte {
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	return frameOf(netip.MustParseAddrPort("0.0.0.0:68"),
		netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), port), m.ToBytes())
}

func TestDHCP(t *testing.T) {
	discover := discoverFrame(t, 67)
	tftp := frameOf(netip.MustParseAddrPort("10.77.0.100:2070"), netip.MustParseAddrPort("10.77.0.1:69"),
		[]byte("\x00\x01x\x00octet\x00"))
	fragment := bytes.Clone(discover)
	fragment[14+6] = 0x20 // more fragments
	tests := []struct {
		name string
		pcap []byte
		want int
		bad  bool
	}{
		{name: "empty capture", pcap: pcapOf(binary.LittleEndian, pcapMagic)},
		{name: "one packet", pcap: pcapOf(binary.LittleEndian, pcapMagic, discover), want: 1},
		{name: "big endian, nanoseconds", pcap: pcapOf(binary.BigEndian, pcapMagicNano, discover), want: 1},
		{name: "port 4011", pcap: pcapOf(binary.LittleEndian, pcapMagic, discoverFrame(t, 4011)), want: 1},
		{
			name: "others between",
			pcap: pcapOf(binary.LittleEndian, pcapMagic, tftp, discover, fragment, []byte{1, 2, 3}, discover),
			want: 2,
		},
		{
			name: "last packet still being written",
			pcap: pcapOf(binary.LittleEndian, pcapMagic, discover, discover)[:24+16+len(discover)+40],
			want: 1,
		},
		{name: "no capture", pcap: []byte("this is not a capture at all"), bad: true},
		{name: "header cut", pcap: []byte{1}, bad: true},
		{
			name: "packet of 4 GiB",
			pcap: append(pcapOf(binary.LittleEndian, pcapMagic), bytes.Repeat([]byte{0xff}, 16)...),
			bad:  true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dhcp.pcap")
			if err := os.WriteFile(path, tt.pcap, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := DHCP(path)
			if (err != nil) != tt.bad || len(got) != tt.want {
				t.Fatalf("DHCP = %d packets, error %v, want %d, error %v", len(got), err, tt.want, tt.bad)
			}
			for _, p := range got {
				if p.DHCP.MessageType() != dhcpv4.MessageTypeDiscover ||
					p.Src != netip.MustParseAddrPort("0.0.0.0:68") || p.From.String() != "52:54:00:77:00:01" {
					t.Errorf("packet = %v from %v %v, want DISCOVER from 0.0.0.0:68 52:54:00:77:00:01",
						p.DHCP.MessageType(), p.Src, p.From)
				}
				if p.At.Before(time.Unix(1000, 0)) || p.At.After(time.Unix(1010, 0)) {
					t.Errorf("packet at %v, want about 1970-01-01 00:16:40", p.At)
				}
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pcapOf(binary.LittleEndian, pcapMagic, discoverFrame(f, 67)))
	f.Add(pcapOf(binary.BigEndian, pcapMagicNano, discoverFrame(f, 4011), []byte{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		datagrams, err := read(bytes.NewReader(b))
		if err != nil && datagrams != nil {
			t.Errorf("read = %d datagrams and %v, want one of them", len(datagrams), err)
		}
	})
}
