package deploy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

func TestJudgeAReportedBMC(t *testing.T) {
	approved := func(b inventory.BMC) inventory.Machine {
		return inventory.Machine{State: inventory.Available, BMC: b}
	}
	own := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("10.0.0.1/31"),
		netip.MustParsePrefix("2001:db8::1/64"),
	}
	found := inventory.BMC{Address: "192.0.2.51", Discovered: true}
	byHand := inventory.BMC{Address: "192.0.2.51"}
	for name, c := range map[string]struct {
		reported string
		machine  inventory.Machine
		trust    bool
		want     verdict
		address  string
		why      string
	}{
		"none": {"", approved(found), false, claimNone, "", ""},
		"a stranger's": {
			"192.0.2.51",
			inventory.Machine{State: inventory.Discovered},
			false, claimPropose, "192.0.2.51",
			"",
		},
		"a stranger's, with trust": {
			"192.0.2.51",
			inventory.Machine{State: inventory.Discovered},
			true, claimPropose, "192.0.2.51",
			"",
		},
		"the first after approval": {
			"192.0.2.51", approved(inventory.BMC{}), false, claimPropose, "192.0.2.51", "",
		},
		"the first after approval, with trust": {
			"192.0.2.51", approved(inventory.BMC{}), true, claimAccept, "192.0.2.51", "",
		},
		"the first of an announced one": {
			"192.0.2.51", inventory.Machine{State: inventory.Enrolled}, false, claimPropose, "192.0.2.51", "",
		},
		"the accepted one": {
			"192.0.2.51", approved(found), false, claimSame, "192.0.2.51", "",
		},
		"the accepted one, mapped": {
			"::ffff:192.0.2.51", approved(found), false, claimSame, "192.0.2.51", "",
		},
		"the accepted one, at another port": {
			"192.0.2.51", approved(inventory.BMC{Address: "192.0.2.51:6230"}), false, claimSame, "192.0.2.51",
			"",
		},
		"the accepted one, which an operator set": {
			"192.0.2.1", approved(inventory.BMC{Address: "192.0.2.1"}), false, claimSame, "192.0.2.1", "",
		},
		"another": {
			"192.0.2.66", approved(found), false, claimPropose, "192.0.2.66", "",
		},
		"another, mapped": {
			"::ffff:192.0.2.66", approved(found), false, claimPropose, "192.0.2.66", "",
		},
		"another, with trust": {
			"192.0.2.66", approved(found), true, claimAccept, "192.0.2.66", "",
		},
		"another than the operator's": {
			"192.0.2.66", approved(byHand), false, claimPropose, "192.0.2.66", "",
		},
		"another than the operator's, with trust": {
			"192.0.2.66", approved(byHand), true, claimPropose, "192.0.2.66", "",
		},
		"one that was declined": {
			"192.0.2.66", approved(inventory.BMC{Address: "192.0.2.51", Declined: "192.0.2.66"}), true,
			claimNone, "192.0.2.66", "",
		},
		"IPv6": {"2001:DB8:0::51", approved(found), false, claimPropose, "2001:db8::51", ""},

		"another machine's": {
			"192.0.2.52", approved(found), true, claimRefuse, "192.0.2.52", "it is m2's",
		},
		"another machine's, mapped": {
			"::ffff:192.0.2.52", approved(found), true, claimRefuse, "192.0.2.52", "it is m2's",
		},
		"with a port": {
			"192.0.2.66:623", approved(found), true, claimRefuse, "", "carries no port",
		},
		"with another port": {
			"192.0.2.66:53", approved(found), true, claimRefuse, "", "carries no port",
		},
		"IPv6 with a port": {
			"[2001:db8::51]:623", approved(found), true, claimRefuse, "", "carries no port",
		},
		"no address": {
			"bmc.example", approved(found), true, claimRefuse, "", `"bmc.example" is no IP address`,
		},
		"brackets": {
			"[2001:db8::51]", approved(found), true, claimRefuse, "", "is no IP address",
		},
		"a prefix": {
			"192.0.2.66/24", approved(found), true, claimRefuse, "", "is no IP address",
		},
		"a space": {
			" 192.0.2.66", approved(found), true, claimRefuse, "", "is no IP address",
		},
		"octal": {
			"192.0.2.066", approved(found), true, claimRefuse, "", "is no IP address",
		},
		"far too long": {
			"fe80::1%" + strings.Repeat("x", 1<<16), approved(found), true, claimRefuse, "",
			"is no IP address",
		},
		"loopback": {
			"127.0.0.1", approved(found), true, claimRefuse, "127.0.0.1", "loopback",
		},
		"another loopback": {
			"127.9.9.9", approved(found), true, claimRefuse, "127.9.9.9", "loopback",
		},
		"loopback, mapped": {
			"::ffff:127.0.0.1", approved(found), true, claimRefuse, "127.0.0.1", "loopback",
		},
		"loopback, IPv6": {"::1", approved(found), true, claimRefuse, "::1", "loopback"},
		"link-local": {
			"169.254.1.1", approved(found), true, claimRefuse, "169.254.1.1", "link-local",
		},
		"link-local, IPv6": {
			"fe80::1", approved(found), true, claimRefuse, "fe80::1", "link-local",
		},
		"a zone": {
			"2001:db8::51%eth0", approved(found), true, claimRefuse, "2001:db8::51%eth0", "link-local",
		},
		"multicast": {
			"239.1.2.3", approved(found), true, claimRefuse, "239.1.2.3", "not the address of one controller",
		},
		"multicast, IPv6": {
			"ff02::1", approved(found), true, claimRefuse, "ff02::1", "not the address of one controller",
		},
		"unspecified": {
			"0.0.0.0", approved(found), true, claimRefuse, "0.0.0.0",
			"not the address of one controller",
		},
		"unspecified, IPv6": {
			"::", approved(found), true, claimRefuse, "::",
			"not the address of one controller",
		},
		"this network": {
			"0.1.2.3", approved(found), true, claimRefuse, "0.1.2.3",
			"not the address of one controller",
		},
		"broadcast": {
			"255.255.255.255", approved(found), true, claimRefuse,
			"255.255.255.255", "not the address of one controller",
		},
		"broadcast of our network": {
			"192.0.2.255", approved(found), true, claimRefuse,
			"192.0.2.255", "broadcast address of 192.0.2.0/24",
		},
		"the old broadcast of our network": {
			"192.0.2.0", approved(found), true, claimRefuse, "192.0.2.0",
			"broadcast address of 192.0.2.0/24",
		},
		"our own": {
			"192.0.2.1", approved(found), true, claimRefuse, "192.0.2.1",
			"an address of this appliance",
		},
		"our own, mapped": {
			"::ffff:192.0.2.1", approved(found), true, claimRefuse,
			"192.0.2.1", "an address of this appliance",
		},
		"our own, IPv6": {
			"2001:db8:0::1", approved(found), true, claimRefuse,
			"2001:db8::1", "an address of this appliance",
		},
		"the other end of a point-to-point": {"10.0.0.0", approved(found), true, claimAccept, "10.0.0.0", ""},
	} {
		holder := func(a netip.Addr) string {
			if a == netip.MustParseAddr("192.0.2.52") {
				return "m2"
			}
			return ""
		}
		v, address, why := claim{c.reported, c.machine, c.trust, own, holder}.judge()
		if v != c.want || address != c.address || (c.why == "") != (why == "") ||
			!strings.Contains(why, c.why) {
			t.Errorf("%s: judge(%.60q) = %s, %q, %q, want %s, %q, %q", name, c.reported, v, address, why,
				c.want, c.address, c.why)
		}
	}
}

// Whatever an agent says, what comes of it is one canonical address that a BMC can have.
func FuzzJudgeAReportedBMC(f *testing.F) {
	for _, s := range []string{
		"", "192.0.2.51", "::ffff:192.0.2.1", "192.0.2.51:623", "127.0.0.1",
		"fe80::1%eth0", "[::1]:1",
	} {
		f.Add(s)
	}
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
	f.Fuzz(func(t *testing.T, s string) {
		m := inventory.Machine{
			State: inventory.Available,
			BMC:   inventory.BMC{Address: "192.0.2.51", Discovered: true},
		}
		v, address, _ := claim{s, m, true, own, func(netip.Addr) string { return "" }}.judge()
		if v != claimAccept && v != claimPropose {
			return
		}
		ip, err := netip.ParseAddr(address)
		if again, cerr := power.Canonical(address); err != nil || cerr != nil || again != address ||
			ip.Is4In6() || !ip.IsGlobalUnicast() || ip == own[0].Addr() {
			t.Errorf("judge(%q) = %s, %q; canonical %q, %v", s, v, address, again, cerr)
		}
	})
}
