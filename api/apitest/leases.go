package apitest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// Leases satisfies api.Leases as the DHCP server of an appliance does. Its zero value is that of a site with
// one machine's lease and an address that was declined.
type Leases struct {
	mu      sync.Mutex
	deleted []string
}

func (l *Leases) Leases() ([]api.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []api.Lease{
		{
			Address: "192.0.2.50", MAC: "52:54:00:00:00:01", ClientID: "01525400000001", Hostname: "web1",
			Machine: "web1",
			State:   "bound", Reserved: true, ExpiresAt: Epoch.Add(12 * time.Hour),
		},
		{
			Address: "192.0.2.101", MAC: "52:54:00:00:00:99", ClientID: "ff01", State: "declined",
			ExpiresAt: Epoch.Add(time.Hour),
		},
	}
	return slices.DeleteFunc(all,
		func(x api.Lease) bool { return slices.Contains(l.deleted, x.Address) }), nil
}

func (l *Leases) DeleteLease(a netip.Addr) error {
	all, _ := l.Leases()
	if !slices.ContainsFunc(all, func(x api.Lease) bool { return x.Address == a.String() }) {
		return &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no lease of %v", a),
			Hint:   "`pxectl lease list` shows the leases there are",
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deleted = append(l.deleted, a.String())
	return nil
}
