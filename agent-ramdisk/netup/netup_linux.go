package netup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
)

// Options select the card.
type Options struct {
	BootMAC inventory.MAC
	// Drivers loads drivers for network cards; it is called again while the card is missing.
	Drivers func() error
	Log     *slog.Logger
}

// An Up is a working card with a lease.
type Up struct {
	Name string
	MAC  inventory.MAC
	IP   net.IP

	log   *slog.Logger
	lease *nclient4.Lease
}

const (
	// cardWait is how long the boot card may take to appear: some load firmware slowly.
	cardWait = 20 * time.Second
	// firstAnswer is the first wait for a DHCP server; it doubles. There is no end: spanning tree may hold a
	// port back for 50 s, and a server may restart.
	firstAnswer = time.Second
	longest     = 16 * time.Second
	// carrierWait is how long a link may take to negotiate before we send without it.
	carrierWait = 5 * time.Second
)

// Start brings up the boot card, or else the first card that a server answers. It returns when there is an
// address.
func Start(ctx context.Context, o Options) (*Up, error) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	cards, err := o.cards(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan *Up)
	for _, link := range cards {
		if err := netlink.LinkSetUp(link); err != nil {
			o.Log.Warn("link up", "card", link.Attrs().Name, "err", err)
			continue
		}
		go func() {
			up := &Up{
				Name: link.Attrs().Name, MAC: inventory.MAC(link.Attrs().HardwareAddr.String()), log: o.Log,
			}
			if up.lease = up.acquire(ctx); up.lease == nil {
				return
			}
			select {
			case answers <- up:
			case <-ctx.Done():
			}
		}()
	}
	select {
	case up := <-answers:
		for _, link := range cards {
			if link.Attrs().Name != up.Name {
				_ = netlink.LinkSetDown(link)
			}
		}
		return up, up.apply()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cards waits for the boot card. Without one it takes all cards.
func (o Options) cards(ctx context.Context) ([]netlink.Link, error) {
	var last error
	for deadline := time.Now().Add(cardWait); ; {
		if err := o.Drivers(); err != nil && (last == nil || err.Error() != last.Error()) {
			o.Log.Warn("network drivers", "err", err)
			last = err
		}
		links, err := hardware()
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if o.BootMAC != "" && l.Attrs().HardwareAddr.String() == string(o.BootMAC) {
				return []netlink.Link{l}, nil
			}
		}
		// Without a boot card to wait for, the first pass is enough.
		if len(links) > 0 && (o.BootMAC == "" || time.Now().After(deadline)) {
			if o.BootMAC != "" {
				o.Log.Warn("the card that the machine booted from has no driver here; trying all others",
					"mac", o.BootMAC)
			}
			return links, nil
		}
		if time.Now().After(deadline) {
			o.Log.Error("no network card has a driver; build the ramdisk with the modules of this "+
				"machine's card", "mac", o.BootMAC)
			deadline = time.Now().Add(time.Minute)
		}
		if err := sleep.For(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// hardware lists the cards with a device.
func hardware() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("network cards: %w", err)
	}
	var links []netlink.Link
	for _, l := range all {
		if _, err := os.Stat(filepath.Join("/sys/class/net", l.Attrs().Name, "device")); err == nil {
			links = append(links, l)
		}
	}
	return links, nil
}

// acquire asks until a server gives an address. After a refusal (NAK) it begins again, as RFC 2131 section
// 3.1.5 requires.
func (u *Up) acquire(ctx context.Context) *nclient4.Lease {
	// Packets without carrier are lost, and the next attempt would come seconds later.
	for deadline := time.Now().Add(carrierWait); !u.carrier() && time.Now().Before(deadline); {
		if sleep.For(ctx, 20*time.Millisecond) != nil {
			return nil
		}
	}
	wait := firstAnswer
	for ctx.Err() == nil {
		lease, err := u.ask(ctx, wait, func(c *nclient4.Client) (*nclient4.Lease, error) {
			return c.Request(ctx, identify,
				dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
					dhcpv4.OptionClasslessStaticRoute))
		})
		if err == nil && lease.ACK.YourIPAddr.To4() != nil && !lease.ACK.YourIPAddr.IsUnspecified() {
			return lease
		}
		if ctx.Err() != nil {
			break
		}
		u.log.Info("no address from DHCP yet", "card", u.Name, "carrier", u.carrier(), "err", err)
		var nak *nclient4.ErrNak
		if errors.As(err, &nak) {
			time.Sleep(500 * time.Millisecond)
			continue
		}
		wait = min(2*wait, longest)
	}
	return nil
}

// identify lets DHCP servers, and people who read their logs, distinguish us from the boot ROM.
func identify(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptClassIdentifier(inventory.AgentVendor)) }

func (u *Up) ask(
	ctx context.Context, wait time.Duration, do func(*nclient4.Client) (*nclient4.Lease, error),
) (*nclient4.Lease, error) {
	c, err := nclient4.New(u.Name, nclient4.WithTimeout(wait), nclient4.WithRetry(1))
	if err != nil {
		_ = sleep.For(ctx, wait)
		return nil, err
	}
	defer c.Close()
	return do(c)
}

func (u *Up) carrier() bool {
	data, err := os.ReadFile(filepath.Join("/sys/class/net", u.Name, "carrier"))
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// apply gives the card its address and routes, and removes those of an earlier lease.
func (u *Up) apply() error {
	link, err := netlink.LinkByName(u.Name)
	if err != nil {
		return err
	}
	ack := u.lease.ACK
	u.IP = ack.YourIPAddr.To4()
	mask := ack.SubnetMask()
	if mask == nil {
		mask = u.IP.DefaultMask()
	}
	old, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: u.IP, Mask: mask}}); err != nil {
		return fmt.Errorf("address %s on %s: %w", u.IP, u.Name, err)
	}
	for _, a := range old {
		if !a.IP.Equal(u.IP) {
			_ = netlink.AddrDel(link, &a)
		}
	}
	// Option 121 takes the place of option 3: RFC 3442.
	routes := ack.ClasslessStaticRoute()
	if len(routes) == 0 {
		for _, gw := range ack.Router() {
			routes = append(routes, &dhcpv4.Route{
				Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: gw,
			})
			break
		}
	}
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: r.Dest, Gw: r.Router}
		if r.Router.IsUnspecified() {
			route.Gw, route.Scope = nil, netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(route); err != nil {
			u.log.Warn("route", "to", r.Dest, "via", r.Router, "err", err)
		}
	}
	u.log.Info("network is up", "card", u.Name, "mac", u.MAC, "ip", u.IP, "server", ack.ServerIdentifier(),
		"lease", ack.IPAddressLeaseTime(0))
	return nil
}

// Keep renews the lease until ctx ends: at half of its time, then ever sooner until it ends, then from the
// beginning (RFC 2131 section 4.4.5).
func (u *Up) Keep(ctx context.Context) error {
	for {
		whole := u.lease.ACK.IPAddressLeaseTime(time.Hour)
		if whole == 0xffffffff*time.Second {
			return nil // for ever
		}
		end := time.Now().Add(whole)
		if err := sleep.For(ctx, whole/2); err != nil {
			return err
		}
		next := u.renew(ctx, end)
		if next == nil {
			u.log.Warn("the DHCP lease could not be renewed; asking anew", "card", u.Name)
			if next = u.acquire(ctx); next == nil {
				return ctx.Err()
			}
		}
		changed := !next.ACK.YourIPAddr.Equal(u.lease.ACK.YourIPAddr)
		u.lease = next
		if changed {
			if err := u.apply(); err != nil {
				u.log.Error("new lease", "err", err)
			}
		}
	}
}

func (u *Up) renew(ctx context.Context, end time.Time) *nclient4.Lease {
	for time.Now().Before(end) && ctx.Err() == nil {
		lease, err := u.ask(ctx, 4*time.Second, func(c *nclient4.Client) (*nclient4.Lease, error) {
			return c.Renew(ctx, u.lease, identify)
		})
		if err == nil {
			return lease
		}
		var nak *nclient4.ErrNak
		if errors.As(err, &nak) {
			return nil
		}
		if sleep.For(ctx, max(time.Second, min(time.Minute, time.Until(end)/2))) != nil {
			return nil
		}
	}
	return nil
}
