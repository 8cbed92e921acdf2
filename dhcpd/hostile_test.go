package dhcpd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/internal/testnet"
)

// A stranger is a host on the provisioning wire that sends any packet.
type stranger struct {
	t    *testing.T
	conn net.PacketConn
	buf  []byte
}

// newStranger plugs a host in. It has an address of its own, so that it can also send as one host to another.
func newStranger(t *testing.T, name, address string) *stranger {
	t.Helper()
	h := testnet.NewHost(t, name, address, "")
	h.Run(t, "ip", "route", "add", "default", "dev", "eth0") // for 255.255.255.255
	s := &stranger{t: t, buf: make([]byte, 2048)}
	h.Inside(t, func() {
		var err error
		if s.conn, err = net.ListenPacket("udp4", ":68"); err != nil {
			t.Error(err)
			return
		}
		rc, err := s.conn.(*net.UDPConn).SyscallConn()
		if err == nil {
			err = allowBroadcast(rc)
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.conn.Close() })
	return s
}

func (s *stranger) send(p *dhcpv4.DHCPv4) {
	s.t.Helper()
	if _, err := s.conn.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpPort}); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a packet until it is answered, as a client does (RFC 2131 section 4.1): UDP may lose one. It
// returns nil when nobody answers.
func (s *stranger) ask(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); s.t.Logf("no answer to %v, which is sent again",
		p.MessageType()) {
		s.send(p)
		_ = s.conn.SetReadDeadline(time.Now().Add(4 * time.Second))
		for {
			n, _, err := s.conn.ReadFrom(s.buf)
			if err != nil {
				break
			}
			if r, err := dhcpv4.FromBytes(s.buf[:n]); err == nil && r.TransactionID == p.TransactionID {
				return r
			}
		}
	}
	return nil
}

// lease takes an address by DISCOVER and REQUEST.
func (s *stranger) lease(mac string, more ...dhcpv4.Modifier) (netip.Addr, error) {
	s.t.Helper()
	offer := s.ask(message(dhcpv4.MessageTypeDiscover, mac, more...))
	if offer == nil {
		return netip.Addr{}, fmt.Errorf("%s is offered nothing", mac)
	}
	a := addr(offer.YourIPAddr)
	if ack := s.ask(message(dhcpv4.MessageTypeRequest, mac,
		append(more, wanting(a.String()), toServer(us))...)); ack == nil ||
		ack.MessageType() != dhcpv4.MessageTypeAck {
		return a, fmt.Errorf("%s is not given %v: %v", mac, a, ack)
	}
	return a, nil
}

func clientID(s string) dhcpv4.Modifier { return option(61, append([]byte{0}, s...)) }

// A stranger puts a known machine's MAC into its packets, with another client identifier in each.
func TestAKnownMACTakesNoWholePool(t *testing.T) {
	testnet.Need(t, "ip")
	r := newRackFor(t, testPlan(), func(c Client) bool {
		return c.MAC.String() == alice || c.MAC.String() == bob
	})
	s := newStranger(t, "stranger", "10.77.0.200/24")
	var got int
	for i := range 20 {
		p := message(dhcpv4.MessageTypeDiscover, alice, clientID(fmt.Sprint("made up ", i)))
		s.send(p)
		r.settled(t, i+1)
	}
	for _, l := range r.Server.leases.table.All() {
		if l.State == leases.Offered {
			got++
		}
	}
	if want := 2 + 5; got != want { // two as a known machine's, and the unknown machines' half of ten
		t.Errorf("made-up identifiers hold %d addresses, want %d", got, want)
	}
	for _, mac := range []string{alice, bob} {
		if a, err := s.lease(mac); err != nil {
			t.Errorf("the machine itself gets no address (%v): %v", a, err)
		}
	}
}

// One client or many clients decline every address that they are given. Machines still get an address.
func TestDeclinesEmptyNoPool(t *testing.T) {
	testnet.Need(t, "ip")
	for _, c := range []struct {
		name     string
		mac      func(i int) string
		declined int
		said     string
	}{
		{"one client", func(int) string { return bob }, 3, "it declines one after the other, so 10.77.0."},
		{
			"many clients", func(i int) string { return fmt.Sprintf("52:54:00:00:01:%02x", i) }, 10,
			"a client declined that address, and no other is free",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := testPlan()
			plan.UnknownShare = 100
			r := newRack(t, plan)
			s := newStranger(t, "stranger", "10.77.0.200/24")
			for i := range 30 {
				a, err := s.lease(c.mac(i), clientID(fmt.Sprint("name ", i)))
				if err != nil {
					t.Fatal(err)
				}
				s.send(message(dhcpv4.MessageTypeDecline, c.mac(i), clientID(fmt.Sprint("name ", i)),
					wanting(a.String()), toServer(us)))
				r.settled(t, 3*(i+1))
			}
			var declined int
			for _, l := range r.Leases() {
				if l.State == leases.Declined {
					declined++
				}
			}
			if declined != c.declined {
				t.Errorf("%d addresses are out of use, want %d", declined, c.declined)
			}
			if a, err := s.lease(alice); err != nil {
				t.Errorf("a machine gets no address (%v): %v", a, err)
			}
			r.saw(t, c.said)
		})
	}
}

// Strangers send RELEASE and DECLINE in another client's name, and a REQUEST for another client's address.
func TestForgedMessagesEndNoLease(t *testing.T) {
	testnet.Need(t, "ip")
	plan := testPlan()
	plan.Probe = true
	r := newRack(t, plan)
	machine := newStranger(t, "machine", "10.77.0.100/24")
	testnet.Host{Name: "machine"}.Run(t, "ip", "link", "set", "eth0", "address", alice)
	a, err := machine.lease(alice)
	if err != nil || a != ip("10.77.0.100") {
		t.Fatal(a, err)
	}
	s := newStranger(t, "stranger", "10.77.0.200/24")
	for _, c := range []struct {
		packet *dhcpv4.DHCPv4
		said   string
	}{
		{
			message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer(us)),
			"releases 10.77.0.100 and sends from 10.77.0.200",
		},
		{
			message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer(us)),
			"10.77.0.100 is in use by the client itself",
		},
		{
			message(dhcpv4.MessageTypeDecline, bob, wanting("10.77.0.100"), toServer(us)),
			"declines 10.77.0.100, which it was not given a moment ago",
		},
		{
			message(dhcpv4.MessageTypeRequest, bob, wanting("10.77.0.100"), toServer(us)),
			"NAK: 10.77.0.100: the address is another client's",
		},
		{
			message(dhcpv4.MessageTypeRequest, alice, wanting("10.77.0.105"), toServer(us)),
			"NAK: 10.77.0.105: the client's address is another one",
		},
	} {
		s.send(c.packet)
		r.saw(t, c.said)
		if l, ok := r.Server.leases.table.At(a); !ok || l.State != leases.Bound || l.MAC.String() != alice {
			t.Fatalf("after %q the lease is %+v, want it as it was", c.said, l)
		}
	}
}

// When strangers take all probes, a known machine gets its address without a probe.
func TestProbesOfStrangersHoldUpNoMachine(t *testing.T) {
	testnet.Need(t, "ip")
	plan := testPlan()
	plan.Probe = true
	r := newRackFor(t, plan, func(c Client) bool { return c.MAC.String() == alice })
	s := newStranger(t, "stranger", "10.77.0.200/24")
	r.Server.leases.prober.mu.Lock()
	for i := range maxProbes {
		r.Server.leases.prober.clients[fmt.Sprint("stranger ", i)] = true
	}
	r.Server.leases.prober.mu.Unlock()
	if a, err := s.lease(alice); err != nil {
		t.Errorf("a known machine gets no address (%v): %v", a, err)
	}
	s.send(message(dhcpv4.MessageTypeDiscover, bob))
	r.saw(t, "its address is being probed")
}

// A host that answers ARP for every address keeps nobody from getting one.
func TestOneHostAnswersForAll(t *testing.T) {
	testnet.Need(t, "ip")
	plan := testPlan()
	plan.Probe = true
	r := newRack(t, plan)
	liar := testnet.NewHost(t, "liar", "", "52:54:00:00:99:99")
	for i := range 10 {
		liar.Run(t, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", 100+i), "dev", "eth0")
	}
	s := newStranger(t, "machine", "10.77.0.200/24")
	if a, err := s.lease(alice); err != nil {
		t.Errorf("a machine gets no address (%v): %v", a, err)
	}
	r.saw(t, "OFFER 10.77.0.1")
}

// Leases are given while the observer hangs, for example in the timeline.
func TestASlowObserverHoldsUpNoLease(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, us+"/24")
	release := make(chan struct{})
	var hangs sync.Once
	hanging := make(chan struct{})
	server, err := Listen(Config{
		Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Decide: boots, Log: discard,
		Leases:  &LeaseConfig{Plan: short(), File: filepath.Join(t.TempDir(), "leases")},
		Observe: func(Seen) { hangs.Do(func() { close(hanging) }); <-release },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	s := newStranger(t, "machine", "10.77.0.200/24")
	if _, err := s.lease(alice); err != nil {
		t.Fatal(err)
	}
	<-hanging
	if _, err := s.lease(bob); err != nil {
		t.Errorf("with an observer that hangs: %v", err)
	}
	cancel()
	select {
	case err := <-ran: // Run does not wait for the observer either
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run waits for the observer")
	}
	close(release)
}

// An observer and a Decider that panic cost one packet each.
func TestPanicsAreSurvived(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, us+"/24")
	server, err := Listen(Config{
		Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Log: discard,
		Decide: func(ctx context.Context, c Client) (Boot, bool) {
			if c.MAC.String() == bob {
				panic("a bug in the decider")
			}
			return boots(ctx, c)
		},
		Leases:  &LeaseConfig{Plan: short(), File: filepath.Join(t.TempDir(), "leases")},
		Observe: func(Seen) { panic("a bug in the observer") },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	s := newStranger(t, "machine", "10.77.0.200/24")
	pxe := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")), option(93, []byte{0, 7}),
	}
	for range 2 * readers {
		s.send(message(dhcpv4.MessageTypeDiscover, bob, pxe...))
	}
	if _, err := s.lease(alice, pxe...); err != nil {
		t.Error(err)
	}
}

// settled waits until the rack has reported n packets.
func (r *rack) settled(t *testing.T, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d packets are reported", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.seen) >= n
	})
}

// A stranger that also forges the source address frees a lease, and still does not get the address.
func TestForgedReleaseGainsNothing(t *testing.T) {
	testnet.Need(t, "ip")
	r := newRack(t, testPlan())
	s := newStranger(t, "stranger", "10.77.0.200/24")
	a, err := s.lease(alice)
	if err != nil {
		t.Fatal(err)
	}
	testnet.Host{Name: "stranger"}.Forge(t, netip.AddrPortFrom(a, clientPort),
		netip.AddrPortFrom(ourAddr, dhcpPort),
		message(dhcpv4.MessageTypeRelease, alice, having(a.String()), toServer(us)).ToBytes())
	r.saw(t, a.String()+" given back")
	if b, err := s.lease(bob, wanting(a.String())); err != nil || b == a {
		t.Errorf("a stranger who asks for it gets %v, %v, want another address", b, err)
	}
	if b, err := s.lease(alice); err != nil || b != a {
		t.Errorf("the machine gets %v, %v, want %v", b, err, a)
	}
}
