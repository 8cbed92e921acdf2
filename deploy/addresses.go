package deploy

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// addresses says whose IP address a transfer came from. TFTP and plain HTTP requests carry no MAC; the kernel's neighbour
// table has it for machines on our own wire, and the boot script's request names it for all others.
type addresses struct {
	mu   sync.Mutex
	seen map[netip.Addr]inventory.MAC

	arp   map[netip.Addr]inventory.MAC // the neighbour table as it was
	arpAt time.Time
}

const (
	// maxAddresses bounds what a flood of script requests can make us remember.
	maxAddresses = 4096
	// The neighbour table of a full rack has 1000 lines, and a rack that is switched on at once asks for it thousands
	// of times: it is read once in a while, and again for an address that it lacked.
	arpFresh  = time.Second
	arpMissed = 100 * time.Millisecond
)

// LearnAddress remembers that a machine asked from an address.
func (e *Engine) LearnAddress(ip netip.Addr, mac inventory.MAC) {
	e.addresses.mu.Lock()
	defer e.addresses.mu.Unlock()
	if e.addresses.seen == nil || len(e.addresses.seen) >= maxAddresses {
		e.addresses.seen = map[netip.Addr]inventory.MAC{}
	}
	e.addresses.seen[ip.Unmap()] = mac
}

// MACAt is the MAC behind an address, or "" when nothing is known of it.
func (e *Engine) MACAt(ip netip.Addr) inventory.MAC {
	return e.addresses.at(ip.Unmap(), time.Now(), func() string {
		raw, _ := os.ReadFile("/proc/net/arp") // without it, what was learnt remains
		return string(raw)
	})
}

func (a *addresses) at(ip netip.Addr, now time.Time, table func() string) inventory.MAC {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, there := a.arp[ip]
	if age := now.Sub(a.arpAt); age >= arpFresh || !there && age >= arpMissed {
		a.arp, a.arpAt = parseARP(table()), now
	}
	if mac := a.arp[ip]; mac != "" {
		return mac
	}
	return a.seen[ip]
}

// parseARP reads the text of /proc/net/arp: IP, type, flags, MAC, mask, device. An address that has not answered has
// no MAC there and is left out.
func parseARP(table string) map[netip.Addr]inventory.MAC {
	all := map[netip.Addr]inventory.MAC{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		ip, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		if mac, err := inventory.ParseMAC(f[3]); err == nil {
			all[ip] = mac
		}
	}
	return all
}
