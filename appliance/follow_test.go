package appliance

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

const serverMode = "dhcp: {mode: server, server: {subnets: [{subnet: 10.77.0.0/24, pools: " +
	"[10.77.0.100-10.77.0.150]}]}}\n"

// Machines boot within seconds after an interface is back, whatever happened to it, and nobody restarts
// anything.
func TestInterfaceIsFollowed(t *testing.T) {
	testnet.Need(t, "ip")
	one, two, three := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2"),
		netip.MustParseAddr("10.77.0.3")
	for mode, config := range map[string]string{"proxy": "", "server": serverMode} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, config)
			h := client(t)
			machine := chain{
				MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: 15 * time.Second,
			}
			ip := func(command string) {
				t.Helper()
				if out, err := exec.CommandContext(t.Context(), "ip",
					strings.Fields(command)...).CombinedOutput(); err != nil {
					t.Fatalf("ip %s: %v: %s", command, err, out)
				}
			}
			anew := func(address string) {
				t.Helper()
				ip("link add br0 type bridge forward_delay 0 mcast_snooping 0")
				ip("addr add " + address + "/24 dev br0")
				ip("link set br0 up")
				ip("link set v-client master br0")
			}
			boots := func(what string, from netip.Addr) {
				t.Helper()
				end := machine.boots(t, h)
				end.from(t, what, from)
				if (mode == "server") == end.Address.IsUnspecified() || end.Took > 8*time.Second {
					t.Errorf("%s: the address %v after %v, want one in mode server only, within 8 s", what,
						end.Address, end.Took)
				}
				t.Logf("%s: booted after %v", what, end.Took.Round(time.Millisecond))
			}
			boots("at the start", one)

			ip("link set br0 down")
			s.event(t, "interface br0 is down")
			ip("link set br0 up")
			boots("down and up", one)
			s.event(t, "interface br0 is back with the address 10.77.0.1")

			ip("addr add 10.77.0.2/24 dev br0")
			boots("with a second address", one)
			ip("addr del 10.77.0.1/24 dev br0") // removes the second one too, unless promote_secondaries is set
			ip("addr replace 10.77.0.2/24 dev br0")
			boots("re-addressed", two)
			s.event(t, "interface br0 has the address 10.77.0.2 instead of 10.77.0.1")
			remote, err := api.NewClient(s.socket)
			if err != nil {
				t.Fatal(err)
			}
			checks, err := remote.Doctor(t.Context())
			if got := apitest.ChecksOf(checks, "interface br0"); err != nil ||
				!strings.HasPrefix(got, "pass: 10.77.0.2, link up; until ") ||
				!strings.HasSuffix(got, "it was 10.77.0.1") {
				t.Errorf("doctor says %q, %v, want where it was and is", got, err)
			}

			ip("link del br0")
			s.event(t, "interface br0 is gone")
			anew("10.77.0.2")
			boots("deleted and made anew", two)
			s.event(t, "interface br0 is back with the address 10.77.0.2")

			ip("link del br0")
			anew("10.77.0.3")
			boots("made anew at once with another address", three)
			s.event(t, "interface br0 has the address 10.77.0.3 instead of 10.77.0.2")
		})
	}
}

// When appliance.yaml names an address, no other one takes its place. It is served again when it is back.
func TestNamedAddressIsKept(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t, "provisioning: {interfaces: [{name: br0, address: 10.77.0.1}]}\n")
	h := client(t)
	machine := chain{MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: 15 * time.Second}
	for _, args := range []string{"addr flush dev br0", "addr add 10.77.0.2/24 dev br0"} {
		if out, err := exec.CommandContext(t.Context(), "ip",
			strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	s.event(t, "interface br0 no longer has the address 10.77.0.1")
	if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", "10.77.0.1/24", "dev",
		"br0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	machine.boots(t, h).from(t, "back", netip.MustParseAddr("10.77.0.1"))
	s.event(t, "interface br0 is back with the address 10.77.0.1")
}

// event waits for one of the appliance's own events.
func (s *site) event(t *testing.T, text string) inventory.Event {
	t.Helper()
	var all []inventory.Event
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		if all, err = s.engine.Events(0, "", 1000); err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if strings.HasPrefix(e.Text, text) {
				return e
			}
		}
	}
	var texts strings.Builder
	for _, e := range all {
		texts.WriteString("\n" + e.Text)
	}
	t.Fatalf("no event says %q; there were:%s", text, texts.String())
	return inventory.Event{}
}
