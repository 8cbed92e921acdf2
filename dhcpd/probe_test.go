package dhcpd

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/testnet"
)

// cable is one end of a wire that nothing else is on. say sends ARP packets from the other end, with any
// sender.
func cable(t *testing.T, name string) (ifindex int, say func(mac string, a netip.Addr)) {
	t.Helper()
	command(t, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"-far")
	t.Cleanup(func() { command(t, "ip", "link", "del", name) })
	for _, end := range []string{name, name + "-far"} {
		command(t, "ip", "link", "set", end, "up")
	}
	near, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.InterfaceByName(name + "-far")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := packet.Listen(far, packet.Datagram, unix.ETH_P_ARP, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return near.Index, func(mac string, a netip.Addr) {
		t.Helper()
		hw, _ := net.ParseMAC(mac)
		p := arpProbe(hw, a)
		copy(p[14:], a.AsSlice()) // the sender has the address
		if _, err := conn.WriteTo(p, &packet.Addr{HardwareAddr: everybody}); err != nil {
			t.Errorf("ARP packet on %s: %v", name, err)
		}
	}
}

func newTestProber(t *testing.T) *prober {
	t.Helper()
	p, err := newProber(discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// asking returns how many ask for an address.
func (p *prober) asking(q arpQuestion) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.asked[q]; a != nil {
		return a.askers
	}
	return 0
}

// All that ask for one address at once are told who has it.
func TestProbesOfOneAddressAreAllAnswered(t *testing.T) {
	testnet.Need(t, "ip")
	ifindex, say := cable(t, "prov0")
	p := newTestProber(t)
	q := arpQuestion{ifindex, ip("10.77.0.100")}
	first, second := p.ask(q), p.ask(q)
	say("52:54:00:00:00:01", q.addr)
	for _, a := range []*arpAnswer{first, second} {
		select {
		case <-a.heard:
			if a.mac.String() != "52:54:00:00:00:01" {
				t.Errorf("%v has it, want 52:54:00:00:00:01", a.mac)
			}
		case <-time.After(patience):
			t.Error("one that asks is not told")
		}
	}
	p.forget(q)
	if n := p.asking(q); n != 1 {
		t.Errorf("%d ask when one has ended, want the other", n)
	}
	p.forget(q)
	if n := p.asking(q); n != 0 || len(p.asked) != 0 {
		t.Errorf("%d ask when both have ended, want none", n)
	}
}

// A host that has the address on another wire does not count.
func TestProbeAsksOneWire(t *testing.T) {
	testnet.Need(t, "ip")
	ours, sayOurs := cable(t, "prov0")
	other, sayOther := cable(t, "office0")
	p := newTestProber(t)
	a := ip("10.77.0.100")
	here, there := p.ask(arpQuestion{ours, a}), p.ask(arpQuestion{other, a})
	sayOther("52:54:00:00:00:02", a)
	<-there.heard
	select {
	case <-here.heard: // packets are heard in their order, so this would be known
		t.Errorf("%v on another wire counts as the address's user", here.mac)
	default:
	}
	sayOurs("52:54:00:00:00:01", a)
	<-here.heard
	if here.mac.String() != "52:54:00:00:00:01" || there.mac.String() != "52:54:00:00:00:02" {
		t.Errorf("users are %v here and %v there", here.mac, there.mac)
	}
	if mac, used := p.used(ours, a); !used || mac.String() != "52:54:00:00:00:01" {
		t.Errorf("used() = %v, %v, want what has been heard", mac, used)
	}
}
