package dhcpd

import (
	"context"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/internal/observe"
)

// An exchange of four packets through everything but the sockets; ACKs wait for the disk.
func BenchmarkExchange(b *testing.B) {
	s := &Server{
		cfg:  Config{Decide: boots, Log: discard, Now: time.Now},
		seen: observe.New(discard, "packets", func(Seen) {}),
	}
	defer s.seen.Close()
	plan := Plan{UnknownShare: 100, LeaseTime: time.Hour, Subnets: []Subnet{{
		Subnet: netip.MustParsePrefix("10.64.0.0/11"),
		Pools:  []leases.Range{{First: ip("10.64.0.1"), Last: ip("10.79.0.0")}},
	}}}
	a, err := newLeaseServer(LeaseConfig{Plan: plan, File: filepath.Join(b.TempDir(), "leases")},
		newLinks([]Interface{{"prov", ourAddr}}, time.Now), discard, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer a.close()
	s.leases = a
	discover := message(dhcpv4.MessageTypeDiscover, alice, through("10.77.0.9")).ToBytes()
	waiting := make(chan struct{}, 8192)
	in := origin{from: netip.MustParseAddrPort("10.77.0.9:67"), to: ourAddr, ifindex: 7}
	packet := func(raw []byte, then func(*dhcpv4.DHCPv4)) {
		p, err := dhcpv4.FromBytes(raw)
		if err != nil {
			b.Fatal(err)
		}
		c := clientOf(p, dhcpPort)
		a.serve(context.Background(), p, c, in, s.ask, func(r *dhcpv4.DHCPv4, why Reason) {
			r.ToBytes()
			s.report(c, r, "", why)
			then(r)
		})
	}
	b.ReportAllocs()
	for i := range b.N {
		binary.BigEndian.PutUint32(discover[28+2:], uint32(i))
		packet(discover, func(r *dhcpv4.DHCPv4) {
			request := message(dhcpv4.MessageTypeRequest, alice, through("10.77.0.9"),
				wanting(addr(r.YourIPAddr).String()), toServer(us)).ToBytes()
			binary.BigEndian.PutUint32(request[28+2:], uint32(i))
			waiting <- struct{}{}
			packet(request, func(*dhcpv4.DHCPv4) { <-waiting })
		})
	}
	for range cap(waiting) {
		waiting <- struct{}{}
	}
}
