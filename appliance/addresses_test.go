package appliance

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pxectl/pxectl/inventory"
)

// tableEntry is an entry of the kernel's neighbour table.
func tableEntry(t *testing.T, ip, mac string, state int) netlink.Neigh {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Neigh{IP: net.ParseIP(ip), HardwareAddr: hw, State: state}
}

func TestWhoseAddress(t *testing.T) {
	reads := 0
	a := &addresses{list: func() []netlink.Neigh {
		reads++
		return []netlink.Neigh{
			tableEntry(t, "10.77.0.60", "52:54:00:77:00:02", netlink.NUD_REACHABLE),
			tableEntry(t, "10.77.0.61", "00:00:00:00:00:00", netlink.NUD_FAILED),
			tableEntry(t, "10.77.0.63", "52:54:00:77:00:63", netlink.NUD_STALE),
			tableEntry(t, "10.77.0.64", "00:00:00:00:00:00", netlink.NUD_NOARP),
			{},
		}
	}}
	a.learn(netip.MustParseAddr("::ffff:10.77.0.61"), "52:54:00:77:00:61")
	a.learn(netip.MustParseAddr("10.77.0.60"), "52:54:00:77:00:99") // the neighbour table comes first
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	at := func(ip string) inventory.MAC { return a.macAt(netip.MustParseAddr(ip), now) }
	for ip, want := range map[string]inventory.MAC{
		"10.77.0.60": "52:54:00:77:00:02", "10.77.0.61": "52:54:00:77:00:61", "10.77.0.62": "",
		"10.77.0.63": "52:54:00:77:00:63", "10.77.0.64": "",
	} {
		if got := at(ip); got != want {
			t.Errorf("MAC at %s = %q, want %q", ip, got, want)
		}
	}
	for range 1000 {
		at("10.77.0.60")
		at("10.77.0.62")
	}
	if reads != 1 {
		t.Errorf("the table was read %d times in one moment, want once", reads)
	}
	now = now.Add(tableMissed)
	at("10.77.0.60")
	if reads != 1 {
		t.Errorf("the table was read %d times for an address that it has, want once", reads)
	}
	at("10.77.0.62")
	now = now.Add(2 * time.Second)
	at("10.77.0.60")
	if reads != 3 {
		t.Errorf("the table was read %d times, want again for what it lacked and again when it is old", reads)
	}
}
