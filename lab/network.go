package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// The rack's addresses. They exist only inside it.
var (
	applianceAddress = netip.MustParseAddr("10.77.0.1")
	siteAddress      = netip.MustParseAddr("10.77.0.2")
)

const (
	bridge = "br0"
	siteNS = "lan" // the namespace of the site's DHCP server
)

func netipPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// mountPrivate gives this mount namespace views of its own of /proc, /sys and /run/netns.
func mountPrivate() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	for _, m := range []struct{ kind, where string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"tmpfs", "/run/netns"},
	} {
		if err := syscall.Mount(m.kind, m.where, m.kind, syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC,
			""); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	return nil
}

// makeNetwork builds the rack's network for that many machines.
func makeNetwork(c *children, machines int) error {
	var b strings.Builder
	// forward_delay 0: a port must not swallow a machine's first DHCP packets.
	// mcast_snooping 0: router solicitations must reach the site's router.
	fmt.Fprintf(&b, "link set lo up\n"+
		"link add %[1]s type bridge forward_delay 0 mcast_snooping 0\n"+
		"link set %[1]s address 52:54:00:77:ff:01 up\n"+
		"addr add %[2]s/24 dev %[1]s\n", bridge, applianceAddress)
	for n := range machines {
		// A BMC's address is no address of the appliance, although both are in this namespace: a route alone
		// makes it reachable and bindable, and no interface has it.
		fmt.Fprintf(&b, "route add local %s dev lo\n", bmcAddress(n+1))
		fmt.Fprintf(&b, "tuntap add dev %[1]s mode tap\nlink set %[1]s master %[2]s up\n", tapName(n+1),
			bridge)
	}
	fmt.Fprintf(&b,
		"netns add %[1]s\nlink add %[1]s0 type veth peer name eth0 netns %[1]s\nlink set %[1]s0 master %[2]s up\n",
		siteNS, bridge)
	if err := ipBatch(c, b.String()); err != nil {
		return err
	}
	site := fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", siteAddress)
	if hasIPv6() {
		site += "addr add fd77::2/64 dev eth0 nodad\n"
	}
	return ipBatch(c, site, "-n", siteNS)
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

func ipBatch(c *children, script string, args ...string) error {
	cmd := exec.Command("ip", append(args, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := c.output(cmd); err != nil {
		return fmt.Errorf("build the rack's network: ip: %w: %s", err, out)
	}
	return nil
}
