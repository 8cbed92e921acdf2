package appliance

import (
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pxectl/pxectl/inventory"
)

// addresses finds the machine behind an IP address, since TFTP and plain HTTP requests carry no MAC. The
// kernel's neighbour table has machines on our own wire. Those behind a router were learnt from requests that
// name their MAC.
type addresses struct {
	list func() []netlink.Neigh // the neighbour table

	mu      sync.Mutex
	learnt  map[netip.Addr]inventory.MAC
	table   map[netip.Addr]inventory.MAC // the neighbour table when it was read
	tableAt time.Time
}

const (
	// maxLearnt bounds what a flood of requests can make us remember.
	maxLearnt = 4096
	// The neighbour table of a full rack has 1000 entries, and a rack that is switched on at once asks for it
	// thousands of times. So it is read again after tableFresh, or after tableMissed for an address that it
	// lacked.
	tableFresh  = time.Second
	tableMissed = 100 * time.Millisecond
)

// neighbourTable reads the kernel's IPv4 neighbour table. It is empty after an error: then only the learnt
// addresses are known.
func neighbourTable() []netlink.Neigh {
	all, _ := netlink.NeighList(0, netlink.FAMILY_V4)
	return all
}

// learn remembers that a machine asked from an address.
func (a *addresses) learn(ip netip.Addr, mac inventory.MAC) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.learnt == nil || len(a.learnt) >= maxLearnt {
		a.learnt = map[netip.Addr]inventory.MAC{}
	}
	a.learnt[ip.Unmap()] = mac
}

// mac is the MAC behind an address, or "" when it is not known.
func (a *addresses) mac(ip netip.Addr) inventory.MAC { return a.macAt(ip.Unmap(), time.Now()) }

func (a *addresses) macAt(ip netip.Addr, now time.Time) inventory.MAC {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, there := a.table[ip]
	if age := now.Sub(a.tableAt); age >= tableFresh || !there && age >= tableMissed {
		a.table, a.tableAt = byAddress(a.list()), now
	}
	if mac := a.table[ip]; mac != "" {
		return mac
	}
	return a.learnt[ip]
}

// byAddress indexes the neighbour table. An address that has not answered has no MAC there, and is left out.
func byAddress(table []netlink.Neigh) map[netip.Addr]inventory.MAC {
	all := make(map[netip.Addr]inventory.MAC, len(table))
	for _, n := range table {
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED|netlink.NUD_NOARP) != 0 {
			continue
		}
		if mac, err := inventory.ParseMAC(n.HardwareAddr.String()); err == nil {
			all[ip.Unmap()] = mac
		}
	}
	return all
}
