package dhcpd

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// relays are DHCP relays that are in use, with their arguments and what they print when they are ready.
var relays = map[string]struct {
	args  []string
	ready string
}{
	"dnsmasq": {[]string{
		"--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root",
		"--dhcp-relay=10.78.0.1,10.77.0.1",
	}, "DHCP relay"},
	"dhcrelay": {
		[]string{"-4", "-d", "-a", "-iu", "eth0", "-id", "far0", "10.77.0.1"},
		"Sending on   Socket",
	},
}

// behind returns a host on a network of its own, 10.78.0.0/24, behind a router with a DHCP relay.
func behind(t *testing.T, relay string) testnet.Host {
	t.Helper()
	router := testnet.NewHost(t, "router", "10.77.0.9/24", "")
	command(t, "ip", "netns", "add", "far")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "far").Run() })
	command(t, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", "far")
	command(t, "ip", "link", "set", "far0", "netns", "router")
	router.Run(t, "ip", "addr", "add", "10.78.0.1/24", "dev", "far0")
	router.Run(t, "ip", "link", "set", "far0", "up")
	router.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	command(t, "ip", "route", "add", "10.78.0.0/24", "via", "10.77.0.9")
	start(t, router.Command(relay, relays[relay].args...), relays[relay].ready)
	far := testnet.Host{Name: "far"}
	far.Run(t, "ip", "link", "set", "lo", "up")
	far.Run(t, "ip", "link", "set", "eth0", "up")
	return far
}

// A client behind a router with a DHCP relay gets a lease, with and without the broadcast flag, and renews it
// without the relay.
func TestRelays(t *testing.T) {
	for relay := range relays {
		for name, flag := range map[string][]string{"unicast": nil, "broadcast": {"-B"}} {
			t.Run(relay+"/"+name, func(t *testing.T) {
				testnet.Need(t, "ip", "udhcpc", relay)
				r := newRack(t, short())
				far := behind(t, relay)
				hook, _ := script(t)
				cmd := far.Command("udhcpc",
					append([]string{"-f", "-i", "eth0", "-R", "-s", hook}, flag...)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
				until(t, "a lease", func() bool { return len(r.Leases()) == 1 })
				until(t, "the address",
					func() bool {
						return strings.Contains(far.Run(t, "ip", "addr", "show", "eth0"),
							"10.78.0.100")
					})
				far.Run(t, "ip", "route", "add", "default", "via", "10.78.0.1")
				was := r.Leases()[0].Expires
				time.Sleep(1100 * time.Millisecond) // leases are counted in seconds
				if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
				until(t, "a renewal", func() bool { return r.Leases()[0].Expires.After(was) })
			})
		}
	}
}

// A proxy's offer has no address that a relay could send it to. It still reaches the client, with and without
// the broadcast flag.
func TestProxyBehindRelays(t *testing.T) {
	for relay := range relays {
		for name, flags := range map[string]string{"unicast": "0000", "broadcast": "8000"} {
			t.Run(relay+"/"+name, func(t *testing.T) {
				testnet.Need(t, "ip", "dnsmasq", relay)
				t.Setenv("DHCPD_TEST_FLAGS", flags)
				newSite(t, boots)
				far := behind(t, relay)
				far.Run(t, "ip", "addr", "add", "10.78.0.60/24", "dev", "eth0")
				far.Run(t, "ip", "route", "add", "default", "dev", "eth0") // for 255.255.255.255
				got := playBoth(t, far, "rom-bios-discover", "rom-bios-discover", ":68", "255.255.255.255:67",
					func(heard []string) bool { return len(heard) > 0 })
				want := `yiaddr=0.0.0.0 class="PXEClient" file="bios-pxe.nbp" opt67="bios-pxe.nbp"`
				if len(got) != 1 || !strings.HasPrefix(got[0], "OFFER from ") ||
					!strings.HasSuffix(got[0], want) {
					t.Errorf("the client heard\n%q, want one OFFER with\n%q", got, want)
				}
			})
		}
	}
}

// Relayed packets are answered to the relay's own address, port 67.
func TestRelay(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	v := newSite(t, boots)
	relay := testnet.NewHost(t, "relay", "10.77.0.3/24", "")
	relay.Run(t, "ip", "addr", "add", "10.78.0.1/24", "dev", "lo")
	if out, err := exec.Command("ip", "route", "add", "10.78.0.0/24", "via",
		"10.77.0.3").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := playBoth(t, relay, "uefi-relayed-discover", "uefi-relayed-discover", "0.0.0.0:67", "10.77.0.1:67",
		func(heard []string) bool { return v.packets() > 0 && fromUs(heard) })
	want := `OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" file="uefi-pxe.nbp" opt67="uefi-pxe.nbp"`
	if len(got) != 1 || got[0] != want {
		t.Errorf("the relay heard\n%q, want\n%q", got, want)
	}
}
