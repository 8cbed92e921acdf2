package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// network brings up the NICs that the seed names, or else every NIC by DHCP. It returns when one NIC has an
// address. The others go on trying.
func network(ctx context.Context, c *console, want []Interface) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	up := make(chan string, len(links))
	started := 0
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			_ = netlink.LinkSetUp(l)
			continue
		}
		i, ok := choose(want, l.Attrs().HardwareAddr.String())
		if !ok {
			continue
		}
		started++
		go func() {
			for {
				err := configure(ctx, l, i, up)
				c.logf("%s: %v", l.Attrs().Name, err)
				time.Sleep(3 * time.Second)
			}
		}()
	}
	if started == 0 {
		return fmt.Errorf("network: none of the %d interfaces is one that the seed names%s", len(links),
			driverless(os.DirFS("/sys/bus/pci/devices")))
	}
	c.logf("network: %s, up %s", <-up, uptime())
	return nil
}

// choose finds the seed's configuration of a NIC. A seed without network-config means DHCP everywhere.
func choose(want []Interface, mac string) (Interface, bool) {
	if len(want) == 0 {
		return Interface{DHCP: true}, true
	}
	for _, i := range want {
		if i.MAC == "" || i.MAC == mac {
			return i, true
		}
	}
	return Interface{}, false
}

// configure gives a NIC its addresses and keeps its lease. It returns after a failure.
func configure(ctx context.Context, l netlink.Link, i Interface, up chan<- string) error {
	name := l.Attrs().Name
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, p := range i.Addresses {
		if err := setAddress(l, p, i.Gateway, 0); err != nil {
			return err
		}
		tell(up, name+" "+p.String())
	}
	if !i.DHCP {
		<-ctx.Done()
		return ctx.Err()
	}
	client, err := nclient4.New(name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return err
	}
	defer client.Close()
	lease, err := client.Request(ctx)
	for {
		if err != nil {
			return fmt.Errorf("DHCP: %w", err)
		}
		ack := lease.ACK
		addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
		ones, bits := ack.SubnetMask().Size()
		if !ok || bits != 32 {
			return fmt.Errorf("DHCP: address %v with mask %v", ack.YourIPAddr, ack.SubnetMask())
		}
		var gateway netip.Addr
		if r := ack.Router(); len(r) > 0 {
			gateway, _ = netip.AddrFromSlice(r[0].To4())
		}
		valid := ack.IPAddressLeaseTime(time.Hour)
		if err := setAddress(l, netip.PrefixFrom(addr, ones), gateway, valid); err != nil {
			return err
		}
		var resolv strings.Builder
		for _, s := range ack.DNS() {
			fmt.Fprintf(&resolv, "nameserver %s\n", s)
		}
		_ = os.MkdirAll("/etc", 0o755)
		if err := os.WriteFile("/etc/resolv.conf", []byte(resolv.String()), 0o644); err != nil {
			return err
		}
		tell(up, fmt.Sprintf("%s %s/%d", name, addr, ones))
		time.Sleep(valid / 2)                 // T1, RFC 2131 section 4.4.5
		lease, err = client.Renew(ctx, lease) // and anew when the server refuses
	}
}

// driverless names the network cards without a driver in this kernel, for the end of a sentence.
func driverless(pci fs.FS) string {
	said := ""
	devices, _ := fs.ReadDir(pci, ".")
	for _, d := range devices {
		attr := func(name string) string {
			text, _ := fs.ReadFile(pci, path.Join(d.Name(), name))
			return strings.TrimPrefix(strings.TrimSpace(string(text)), "0x")
		}
		if !strings.HasPrefix(attr("class"), "02") { // network controllers: PCI Code and ID Assignment, section 1.3
			continue
		}
		if _, err := fs.Stat(pci, path.Join(d.Name(), "driver")); err != nil {
			said += fmt.Sprintf("; this image's kernel has no driver for the card %s [%s:%s]", d.Name(),
				attr("vendor"), attr("device"))
		}
	}
	return said
}

func tell(up chan<- string, text string) {
	select {
	case up <- text:
	default:
	}
}

func setAddress(l netlink.Link, p netip.Prefix, gateway netip.Addr, valid time.Duration) error {
	addr := &netlink.Addr{
		IPNet:    &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		ValidLft: int(valid.Seconds()), PreferedLft: int(valid.Seconds()),
	}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	if !gateway.IsValid() {
		return nil
	}
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("default route by %s: %w", gateway, err)
	}
	return nil
}

// interfacesDown takes every NIC down.
func interfacesDown() error {
	links, err := netlink.LinkList()
	errs := []error{err}
	for _, l := range links {
		errs = append(errs, netlink.LinkSetDown(l))
	}
	return errors.Join(errs...)
}
