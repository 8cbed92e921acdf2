package appliance

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// neighbours are the other DHCP servers on the provisioning networks, as overheard. One that tells machines what to boot
// competes with us, and firmware takes whichever answer it likes; so it is named at once.
type neighbours struct {
	log  *slog.Logger
	note func(inventory.Event)
	off  bool // we do not take part in DHCP: then somebody else has to tell machines what to boot

	mu   sync.Mutex
	deaf string // why nothing can be heard; "" when it can
	all  map[neighbour]*heard
}

// A neighbour is a server on an interface.
type neighbour struct {
	Server    netip.Addr
	Interface string
}

// heard is what a neighbour said.
type heard struct {
	neighbour
	last   time.Time
	leases bool   // it hands out addresses
	boots  string // what it tells machines to boot; "" when nothing
	pxectl bool   // it answers as we do
}

// maxNeighbours bounds what forged packets can make us remember. Past it, new ones are not.
const maxNeighbours = 64

func (n *neighbours) heard(o dhcpd.Overheard) {
	n.mu.Lock()
	if n.all == nil {
		n.all = map[neighbour]*heard{}
	}
	key := neighbour{o.Server, o.Interface}
	h := n.all[key]
	if h == nil {
		if len(n.all) >= maxNeighbours {
			n.mu.Unlock()
			return
		}
		h = &heard{neighbour: key}
		n.all[key] = h
	}
	before := h.boots
	h.last, h.leases = o.Time, h.leases || o.Addr.IsValid()
	if o.Boots() {
		h.boots = cmp.Or(bootName(o.File), o.Class)
		h.pxectl = h.pxectl || looksLikeUs(o)
	}
	now := *h
	n.mu.Unlock()
	if before != "" || now.boots == "" || n.off {
		return
	}
	n.log.Warn("another DHCP server tells machines what to boot", "server", o.Server, "interface", o.Interface, "boot", now.boots, "pxectl", now.pxectl)
	n.note(inventory.Event{At: o.Time.UTC(), Kind: inventory.KindDHCP, Text: now.String(), Data: facts("server", ip(o.Server), "interface", o.Interface, "boot", now.boots)})
}

// cannot says why nobody is heard.
func (n *neighbours) cannot(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = err.Error()
}

func (h heard) String() string {
	if h.pxectl {
		return fmt.Sprintf("another pxectl, %v on %s, tells machines to boot %q", h.Server, h.Interface, h.boots)
	}
	return fmt.Sprintf("another DHCP server, %v on %s, tells machines to boot %q", h.Server, h.Interface, h.boots)
}

// list is who was heard, those that matter most first.
func (n *neighbours) list() (all []heard, deaf string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.all {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b heard) int {
		return cmp.Or(strings.Compare(b.boots, a.boots), a.Server.Compare(b.Server), strings.Compare(a.Interface, b.Interface))
	})
	return all, n.deaf
}

// looksLikeUs knows our own form of an answer: our names of boot programs with the server's address in words beside
// them, or our script with iPXE's settings behind it.
func looksLikeUs(o dhcpd.Overheard) bool {
	if u, err := url.Parse(o.File); err == nil && u.Host != "" {
		_, program := ipxe.NBP(strings.TrimPrefix(u.Path, ipxe.NBPPath("")))
		return u.Path == "/boot.ipxe" && strings.HasPrefix(u.RawQuery, "mac=${") || program
	}
	_, program := ipxe.NBP(o.File)
	return program && o.TFTP == o.Server.String()
}

// bootName is a boot file without iPXE's settings, fit for a terminal.
func bootName(file string) string {
	file, _, _ = strings.Cut(file, "?")
	return printable(file)
}

// overhear listens for other DHCP servers. Where that is not permitted, machines boot as well, and less is known.
func (p bootPlane) overhear(cfg Config, log *slog.Logger) []service {
	var names []string
	for _, in := range cfg.Provisioning.Interfaces {
		names = append(names, in.Name)
	}
	l, err := dhcpd.Overhear(names, p.sawOther, log)
	if err != nil {
		log.Warn("other DHCP servers will not be heard, and `pxectl why` knows less", "err", err)
		p.neighbours.cannot(err)
		return nil
	}
	return []service{{"overhear", l.Run}}
}

// sawOther notes on a client's timeline what another DHCP server told it.
func (p bootPlane) sawOther(o dhcpd.Overheard) {
	p.neighbours.heard(o)
	mac, err := inventory.ParseMAC(o.Client.String())
	if err != nil {
		return
	}
	if nic, err := net.InterfaceByName(o.Interface); err == nil && nic.HardwareAddr.String() == string(mac) {
		return // the doctor asked
	}
	if o.Addr.IsValid() && o.Type.String() == "ACK" {
		p.addresses.learn(o.Addr, mac)
	}
	boot := ""
	if o.Boots() {
		boot = cmp.Or(bootName(o.File), o.Class)
	}
	p.engine.Note(inventory.Event{At: o.Time.UTC(), MAC: mac, Kind: inventory.KindDHCP, Text: o.String(), Data: facts(
		inventory.DataServer, ip(o.Server), inventory.DataType, o.Type.String(), inventory.DataAddress, ip(o.Addr), inventory.DataBoot, boot,
		inventory.DataNext, ip(o.Next), inventory.DataInterface, o.Interface,
	)})
}
