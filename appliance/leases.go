package appliance

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// listenDHCP opens the DHCP server of the configured mode; it is nil when that is off.
func listenDHCP(cfg config.Config, plane bootPlane, log *slog.Logger) (*dhcpd.Server, error) {
	if cfg.DHCP.Mode == "off" {
		return nil, nil
	}
	d := dhcpd.Config{Decide: plane.dhcp, Program: hasProgram, Observe: plane.sawDHCP, Log: log}
	for _, in := range cfg.Provisioning.Interfaces {
		d.Interfaces = append(d.Interfaces, dhcpd.Interface{Name: in.Name, Addr: in.Address})
	}
	if cfg.DHCP.Mode == "server" {
		d.Leases = &dhcpd.LeaseConfig{
			Plan: cfg.DHCP.Server, File: filepath.Join(cfg.DataDir, "leases"), Known: plane.known,
		}
	}
	return dhcpd.Listen(d)
}

func hasProgram(a dhcpd.Arch) bool {
	_, ok := ipxe.NBPFor(uint16(a), false)
	return ok
}

// known says whether a DHCP client is a machine that was added or approved.
func (p bootPlane) known(c dhcpd.Client) bool {
	mac, ok := machineMAC(c.MAC)
	if !ok {
		return false
	}
	m, ok := p.engine.MachineAt(mac)
	return ok && m.State != inventory.Discovered
}

// leaseBook is the leases as the API shows them.
type leaseBook struct {
	dhcp   *dhcpd.Server // nil when DHCP is off
	engine *deploy.Engine
	mode   string
}

func (b leaseBook) Leases() ([]api.Lease, error) {
	if err := b.closed(); err != nil {
		return nil, err
	}
	list := []api.Lease{}
	for _, l := range b.dhcp.Leases() {
		out := api.Lease{
			Address:  l.Addr.String(),
			ClientID: hex.EncodeToString([]byte(l.Client)),
			MAC:      l.MAC.String(),
			Hostname: l.Host,
			State:    l.State.String(), Reserved: l.Reservation != "", ExpiresAt: l.Expires.UTC(),
		}
		if m, err := b.engine.Machine(out.MAC); err == nil {
			out.Machine = m.Name
		}
		list = append(list, out)
	}
	return list, nil
}

func (b leaseBook) DeleteLease(a netip.Addr) error {
	if err := b.closed(); err != nil {
		return err
	}
	_, ok, err := b.dhcp.DeleteLease(a)
	if err == nil && !ok {
		err = &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no lease of %v", a),
			Hint:   "`pxectl lease list` shows the leases there are",
		}
	}
	return err
}

// closed returns why this appliance has no leases, or nil in mode server.
func (b leaseBook) closed() error {
	if b.mode == "server" {
		return nil
	}
	return &inventory.Problem{
		Code:   inventory.CodeConflict,
		Detail: fmt.Sprintf("dhcp.mode is %s: this appliance hands out no addresses", b.mode),
		Hint:   "look at the DHCP server of the site, or set dhcp.mode to server",
	}
}
