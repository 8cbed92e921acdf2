package dhcpd

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// wire is a DHCP packet as captured.
type wire struct {
	src, dst netip.AddrPort
	p        *dhcpv4.DHCPv4
}

// readPcap reads the UDP packets of an Ethernet capture in tcpdump's classic format.
func readPcap(t *testing.T, file string) []wire {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 24 {
		t.Fatalf("capture of %d bytes: %v", len(b), err)
	}
	var all []wire
	for b = b[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if len(b) < 16+n {
			break // it is being written
		}
		frame := b[16 : 16+n]
		b = b[16+n:]
		ip := frame[14:]
		udp := ip[int(ip[0]&15)*4:]
		p, err := dhcpv4.FromBytes(udp[8:binary.BigEndian.Uint16(udp[4:])])
		if err != nil {
			t.Errorf("captured packet: %v", err)
			continue
		}
		end := func(ip, port []byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip)), binary.BigEndian.Uint16(port))
		}
		all = append(all, wire{end(ip[12:16], udp), end(ip[16:20], udp[2:]), p})
	}
	return all
}

func allowBroadcast(c syscall.RawConn) error {
	var opt error
	if err := c.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }); err != nil {
		return err
	}
	return opt
}
