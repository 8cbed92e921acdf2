package netup

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// TestLease gets, applies and renews a lease of a real DHCP server. The card is a veth without a device, so
// the lab's boot tests cover the choice of cards.
func TestLease(t *testing.T) {
	testnet.Need(t, "dnsmasq", "ip")
	testnet.Bridge(t, "")
	server := testnet.NewHost(t, "dhcp", "10.77.0.2/24", "")
	leases := filepath.Join(t.TempDir(), "leases")
	start := func() {
		cmd := server.Command("dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null",
			"--interface=eth0", "--bind-interfaces", "--dhcp-authoritative",
			"--dhcp-range=10.77.0.100,10.77.0.110,255.255.255.0,2m", "--dhcp-option=3,10.77.0.1",
			"--dhcp-leasefile="+leases, "--log-dhcp")
		var log strings.Builder
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("dnsmasq: %s", log.String())
			}
		})
	}

	// The card is a bridge's own interface: it is in the test's namespace, like a machine's.
	link, err := netlink.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	up := &Up{Name: "br0", log: slog.New(slog.DiscardHandler)}
	// The server comes late, as after a power cut of the whole rack.
	go func() {
		time.Sleep(1500 * time.Millisecond)
		start()
	}()
	if up.lease = up.acquire(ctx); up.lease == nil {
		t.Fatal("no lease")
	}
	if err := up.apply(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(up.IP.String(), "10.77.0.1") {
		t.Errorf("IP = %s, want one of 10.77.0.100 to 110", up.IP)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	var gateway string
	for _, r := range routes {
		if r.Gw != nil {
			gateway = r.Gw.String()
		}
	}
	if gateway != "10.77.0.1" {
		t.Errorf("default route via %q, want 10.77.0.1 (routes %v)", gateway, routes)
	}
	renewed := up.renew(ctx, time.Now().Add(time.Minute))
	if renewed == nil || !renewed.ACK.YourIPAddr.Equal(up.IP) {
		t.Errorf("renew = %v, want the lease of %s again", renewed, up.IP)
	}
	// Another address from another server: the old one must be removed.
	if err := netlink.AddrAdd(link,
		&netlink.Addr{IPNet: &net.IPNet{
			IP:   net.IPv4(10, 99, 0, 5),
			Mask: net.CIDRMask(24, 32),
		}}); err != nil {
		t.Fatal(err)
	}
	if err := up.apply(); err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || !addrs[0].IP.Equal(up.IP) {
		t.Errorf("addresses %v, %v, want %s alone", addrs, err, up.IP)
	}
}
