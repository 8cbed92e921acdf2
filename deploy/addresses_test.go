package deploy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

const arpTable = `IP address       HW type     Flags       HW address            Mask     Device
10.77.0.60       0x1         0x2         52:54:00:77:00:02     *        br0
10.77.0.61       0x1         0x0         00:00:00:00:00:00     *        br0
rubbish
`

func TestWhoseAddress(t *testing.T) {
	e := &Engine{}
	e.LearnAddress(netip.MustParseAddr("::ffff:10.77.0.61"), "52:54:00:77:00:61")
	e.LearnAddress(netip.MustParseAddr("10.77.0.60"), "52:54:00:77:00:99") // the wire knows better
	reads := 0
	table := func() string { reads++; return arpTable }
	now := noon
	at := func(ip string) inventory.MAC { return e.addresses.at(netip.MustParseAddr(ip), now, table) }
	for ip, want := range map[string]inventory.MAC{"10.77.0.60": "52:54:00:77:00:02", "10.77.0.61": "52:54:00:77:00:61", "10.77.0.62": ""} {
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
	now = now.Add(arpMissed)
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

// The table holds what machines on the wire say of themselves.
func FuzzParseARP(f *testing.F) {
	f.Add(arpTable)
	f.Fuzz(func(t *testing.T, table string) {
		for ip, mac := range parseARP(table) {
			if got, err := inventory.ParseMAC(string(mac)); err != nil || got != mac || !ip.IsValid() {
				t.Errorf("parseARP has %v at %q", ip, mac)
			}
		}
	})
}
