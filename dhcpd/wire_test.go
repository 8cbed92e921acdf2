package dhcpd

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/pcap"
)

// wire is a DHCP packet as captured.
type wire struct {
	src, dst netip.AddrPort
	p        *dhcpv4.DHCPv4
}

// readPcap reads a capture of DHCP alone.
func readPcap(t *testing.T, file string) []wire {
	t.Helper()
	datagrams, err := pcap.UDP(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []wire
	for _, d := range datagrams {
		p, err := dhcpv4.FromBytes(d.Payload)
		if err != nil {
			t.Errorf("captured packet: %v", err)
			continue
		}
		all = append(all, wire{d.Src, d.Dst, p})
	}
	return all
}

func allowBroadcast(c syscall.RawConn) error {
	var opt error
	if err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}); err != nil {
		return err
	}
	return opt
}
