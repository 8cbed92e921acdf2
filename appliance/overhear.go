package appliance

import (
	"cmp"
	"log/slog"
	"net"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// overhear listens for other DHCP servers. It returns nil where that is not permitted: machines boot all the
// same, but `pxectl why` knows less.
func (p bootPlane) overhear(cfg config.Config, log *slog.Logger) *dhcpd.Listener {
	var names []string
	for _, in := range cfg.Provisioning.Interfaces {
		names = append(names, in.Name)
	}
	l, err := dhcpd.Overhear(names, p.sawOther, log)
	if err != nil {
		log.Warn("other DHCP servers will not be heard, and `pxectl why` knows less", "err", err)
		p.rogues.Absent(err)
		return nil
	}
	return l
}

// sawOther notes on a client's timeline what another DHCP server told it.
func (p bootPlane) sawOther(o dhcpd.Overheard) {
	o = p.rogues.Heard(o)
	mac, err := inventory.ParseMAC(o.Client.String())
	if err != nil {
		return
	}
	if nic, err := net.InterfaceByName(o.Interface); err == nil && nic.HardwareAddr.String() == string(mac) {
		return // our own doctor asked
	}
	if o.Addr.IsValid() && o.Type.String() == "ACK" {
		p.addresses.learn(o.Addr, mac)
	}
	boot, impostor := "", ""
	if o.Impostor {
		impostor = o.From.String()
	}
	if o.Boots() {
		boot = cmp.Or(rogue.BootName(o.File), o.Class)
	}
	p.engine.Note(inventory.Event{
		At: o.Time.UTC(), MAC: mac, Kind: inventory.KindDHCP, Text: o.String(), Data: facts(
			inventory.DataServer, ip(o.Server), inventory.DataType, o.Type.String(),
			inventory.DataAddress, ip(o.Addr), inventory.DataBoot, boot,
			inventory.DataNext, ip(o.Next), inventory.DataInterface, o.Interface,
			inventory.DataImpostor, impostor,
		),
	})
}
