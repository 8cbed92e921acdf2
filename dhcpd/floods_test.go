package dhcpd

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
)

// A flood of strangers leaves room for known machines. A machine keeps its address when its system sends the
// MAC as client identifier and its firmware sends none.
func TestFloodOfStrangers(t *testing.T) {
	d := newDesk(t, testPlan())
	for i := range 1000 {
		d.hear(message(1, fmt.Sprintf("02:00:00:00:%02x:%02x", i>>7, 0x80|i&0x7f)), false)
	}
	if _, why := d.hear(message(1, "02:00:00:01:00:ff"), false); why != leases.ErrShare.Error() {
		t.Errorf("a stranger after the flood: %q, want %q", why, leases.ErrShare)
	}
	if a := d.lease(t, alice); a != "10.77.0.105" {
		t.Errorf("a known machine got %s", a)
	}
	if a, b := d.lease(t, alice), d.lease(t, alice, option(61, []byte{1, 0x52, 0x54, 0, 0, 0, 1})); a != b {
		t.Errorf("with its hardware address as client identifier it got %s, without %s", b, a)
	}
}

func FuzzServe(f *testing.F) {
	for _, name := range goldenNames(f) {
		_, raw, _ := golden(f, name)
		f.Add(raw, false)
	}
	f.Add(message(dhcpv4.MessageTypeDecline, alice, wanting("10.77.0.100"), toServer(us)).ToBytes(), true)
	f.Add(message(dhcpv4.MessageTypeRelease, alice, having("10.77.0.100"), toServer(us)).ToBytes(), true)
	f.Add(message(dhcpv4.MessageTypeRequest, alice, wanting("10.78.0.100"), through("10.78.0.1"),
		option(82, []byte{5, 4, 10, 78, 0, 0})).ToBytes(), false)
	d := newDesk(f, testPlan())
	f.Fuzz(func(t *testing.T, raw []byte, unicast bool) {
		p, err := dhcpv4.FromBytes(raw)
		if err != nil {
			return
		}
		r, _ := d.hear(p, unicast)
		if r == nil {
			return
		}
		if _, err := dhcpv4.FromBytes(r.ToBytes()); err != nil {
			t.Errorf("our answer is not readable: %v", err)
		}
		if n := len(r.ToBytes()); n > limit(p) {
			t.Errorf("%d bytes, the client takes %d", n, limit(p))
		}
		if a := addr(r.YourIPAddr); a.IsValid() && d.subnetOf(a) < 0 {
			t.Errorf("we gave %v, which is in no subnet", a)
		}
	})
}

func FuzzARP(f *testing.F) {
	f.Add(arpProbe(net.HardwareAddr{2, 0, 0, 0, 0, 1}, ourAddr))
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, a, ok := parseARP(b); ok && (len(mac) != 6 || !a.Is4()) {
			t.Errorf("parseARP(%x) = %v, %v", b, mac, a)
		}
	})
}

// One machine sends different client identifiers from its ROM, from iPXE and from its system (RFC 4361). It
// keeps its address when client identifiers are ignored.
func TestOneMACWithManyClientIdentifiers(t *testing.T) {
	for ignore, want := range map[bool]int{true: 1, false: 3} {
		p := testPlan()
		p.IgnoreClientID = ignore
		d := newDesk(t, p)
		got := map[string]bool{}
		for _, id := range []dhcpv4.Modifier{
			func(*dhcpv4.DHCPv4) {},
			option(61, append([]byte{0}, "a UUID of its own"...)),
			option(61, append([]byte{0xff, 0, 0, 0, 1, 0, 4}, make([]byte, 16)...)),
		} {
			offer, why := d.hear(message(dhcpv4.MessageTypeDiscover, alice, id), false)
			if offer == nil {
				t.Fatal(why)
			}
			a := offer.YourIPAddr.String()
			if ack, why := d.hear(message(dhcpv4.MessageTypeRequest, alice, id, wanting(a), toServer(us)),
				false); ack == nil || ack.YourIPAddr.String() != a {
				t.Fatalf("REQUEST of %s: %v, %s", a, ack, why)
			}
			got[a] = true
		}
		if len(got) != want {
			t.Errorf("ignore_client_id: %v: it had %d addresses, want %d", ignore, len(got), want)
		}
	}
}

// A DECLINE counts only when the client was asked for by ARP: who keeps all probes busy gains nothing.
func TestDeclineWhileAllProbesAreBusy(t *testing.T) {
	d := newDesk(t, testPlan())
	a := d.lease(t, alice)
	d.prober = &prober{clients: map[string]bool{}}
	defer func() { d.prober = nil }()
	decline := message(dhcpv4.MessageTypeDecline, alice, wanting(a), toServer(us))
	for i := range maxProbes {
		d.prober.clients[fmt.Sprint(i)] = true
	}
	if why := d.says(decline, false); !strings.Contains(why, "too many addresses are being probed") {
		t.Errorf("while all probes are busy: %s", why)
	}
	d.prober.clients = map[string]bool{nameOf(decline.ClientHWAddr): true}
	if why := d.says(decline, false); !strings.Contains(why, "being probed") {
		t.Errorf("while the client's own address is probed: %s", why)
	}
	if all := d.table.List(); len(all) != 1 || all[0].State != leases.Bound {
		t.Errorf("leases %v, want the client's, as it was", all)
	}
}
