package deploy

import (
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/pxectl/pxectl/inventory"
)

// addresses says whose IP address a transfer came from. TFTP and plain HTTP requests carry no MAC; the kernel's neighbour
// table has it for machines on our own wire, and the boot script's request names it for all others.
type addresses struct {
	mu   sync.Mutex
	seen map[netip.Addr]inventory.MAC
}

// maxAddresses bounds what a flood of script requests can make us remember.
const maxAddresses = 4096

// LearnAddress remembers that a machine asked from an address.
func (e *Engine) LearnAddress(ip netip.Addr, mac inventory.MAC) {
	e.addresses.mu.Lock()
	defer e.addresses.mu.Unlock()
	if e.addresses.seen == nil || len(e.addresses.seen) >= maxAddresses {
		e.addresses.seen = map[netip.Addr]inventory.MAC{}
	}
	e.addresses.seen[ip] = mac
}

// MACAt is the MAC behind an address, or "" when nothing is known of it.
func (e *Engine) MACAt(ip netip.Addr) inventory.MAC {
	ip = ip.Unmap()
	if raw, err := os.ReadFile("/proc/net/arp"); err == nil {
		if mac := inARP(string(raw), ip); mac != "" {
			return mac
		}
	}
	e.addresses.mu.Lock()
	defer e.addresses.mu.Unlock()
	return e.addresses.seen[ip]
}

// inARP finds an address in the text of /proc/net/arp: IP, type, flags, MAC, mask, device.
func inARP(table string, ip netip.Addr) inventory.MAC {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != ip.String() {
			continue
		}
		if mac, err := inventory.ParseMAC(f[3]); err == nil {
			return mac
		}
	}
	return ""
}
