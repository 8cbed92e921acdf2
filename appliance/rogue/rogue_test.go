package rogue

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

func TestServersAreNamed(t *testing.T) {
	us, lan := netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("10.77.0.2")
	for name, c := range map[string]struct {
		heard []dhcpd.Overheard
		off   bool
		want  string // the event; "" for none
	}{
		"a server that only hands out addresses": {heard: []dhcpd.Overheard{{Server: lan, Addr: us}}},
		"one that hands out a boot file, twice": {
			heard: []dhcpd.Overheard{
				{Server: lan, Addr: us},
				{Server: lan, Addr: us, File: "pxelinux.0"},
				{Server: lan, Addr: us, File: "pxelinux.0"},
			},
			want: `another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`,
		},
		"a proxy with a menu": {
			heard: []dhcpd.Overheard{{Server: lan, Class: "PXEClient"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "PXEClient"`,
		},
		"a second pxectl, to firmware": {
			heard: []dhcpd.Overheard{
				{Server: us, Class: "PXEClient", File: "snponly.efi", TFTP: "10.77.0.9"},
			},
			want: `another pxectl, 10.77.0.9 on br0, tells machines to boot "snponly.efi"`,
		},
		"a second pxectl, to an iPXE": {
			heard: []dhcpd.Overheard{
				{
					Server: us,
					Class:  "PXEClient",
					File:   "http://10.77.0.9:8080/boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}",
				},
			},
			want: `another pxectl, 10.77.0.9 on br0, tells machines to boot "http://10.77.0.9:8080/boot.ipxe"`,
		},
		"dnsmasq with the same program": {
			heard: []dhcpd.Overheard{{Server: lan, Addr: us, File: "undionly.kpxe"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "undionly.kpxe"`,
		},
		"a hostile name": {
			heard: []dhcpd.Overheard{{Server: lan, File: "\x1b[2Jx"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "[2Jx"`,
		},
		"a name of nothing": {
			heard: []dhcpd.Overheard{{Server: lan, File: "?\x01"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "(unreadable)"`,
		},
		"while we take no part": {heard: []dhcpd.Overheard{{Server: lan, File: "pxelinux.0"}}, off: true},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			var noted []string
			n := Servers{
				Log:  slog.New(slog.NewTextHandler(&log, nil)),
				Off:  c.off,
				Note: func(e inventory.Event) { noted = append(noted, e.Text) },
			}
			for _, o := range c.heard {
				o.Interface, o.Time = "br0", time.Now()
				n.Heard(o)
			}
			if got := strings.Join(noted, "; "); got != c.want {
				t.Errorf("noted %q, want %q", got, c.want)
			}
			if logged := strings.Count(log.String(), "level=WARN"); (logged == 1) != (c.want != "") {
				t.Errorf("logged %d warnings, want one with an event and none without:\n%s", logged,
					log.String())
			}
			if all, _ := n.List(); len(all) != 1 {
				t.Errorf("List() = %+v, want one server", all)
			}
		})
	}
}

// answer is an answer of a server on br0, heard so long ago.
func answer(server int, boot string, ago time.Duration) dhcpd.Overheard {
	return dhcpd.Overheard{
		Server:    netip.AddrFrom4([4]byte{10, 0, byte(server >> 8), byte(server)}),
		Interface: "br0",
		File:      boot,
		Time:      time.Now().Add(-ago),
		Addr:      netip.MustParseAddr("10.77.0.100"),
	}
}

// listed returns the servers that are remembered, with what they tell machines to boot.
func listed(n *Servers) map[string]string {
	all, _ := n.List()
	boots := map[string]string{}
	for _, s := range all {
		boots[s.Addr.String()] = s.Boots
	}
	return boots
}

func TestForgedServersAreBounded(t *testing.T) {
	for name, boot := range map[string]string{
		"that tell machines what to boot": "x",
		"that tell them nothing":          "",
	} {
		n := Servers{Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) {}}
		for i := range 1000 {
			n.Heard(answer(i, boot, time.Hour-time.Duration(i)*time.Second))
		}
		all := listed(&n)
		if _, newest := all["10.0.3.231"]; len(all) != MaxServers || !newest {
			t.Errorf("of 1000 servers %s, %d are remembered, want %d and the newest among them: %v", name,
				len(all), MaxServers, all)
		}
	}
}

func TestWhoMakesRoom(t *testing.T) {
	const first, late = "10.0.0.0", "10.0.1.44"
	for name, c := range map[string]struct {
		early, late string // what the 64 tell machines to boot, and the one that comes when there is no room
		want        bool   // whether the late one has the place of the first
	}{
		"a rogue beside servers that boot nothing": {late: "evil.efi", want: true},
		"a rogue beside rogues":                    {early: "x", late: "evil.efi", want: true},
		"one that boots nothing beside its like":   {want: true},
		"one that boots nothing beside rogues":     {early: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			var noted []string
			n := Servers{
				Log:  slog.New(slog.DiscardHandler),
				Note: func(e inventory.Event) { noted = append(noted, e.Text) },
			}
			for i := range MaxServers {
				n.Heard(answer(i, c.early, time.Hour-time.Duration(i)*time.Second))
			}
			noted = nil
			n.Heard(answer(300, c.late, 0))
			all := listed(&n)
			_, stays := all[first]
			boots, there := all[late]
			if len(all) != MaxServers || stays == c.want || there != c.want || boots != c.late && c.want {
				t.Errorf("the first is there: %v, the late one: %v with %q, of %d; "+
					"want the late one in its place: %v",
					stays, there, boots, len(all), c.want)
			}
			if (len(noted) == 1) != (c.late != "") {
				t.Errorf("noted %q, want the late one when it tells machines what to boot", noted)
			}
		})
	}
	// A rogue that was silent for longest stays: servers that boot nothing make room first.
	n := Servers{Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) {}}
	n.Heard(answer(300, "evil.efi", 2*time.Hour))
	for i := range 2 * MaxServers {
		n.Heard(answer(i, "", time.Hour))
	}
	n.Heard(answer(301, "evil.efi", 0))
	if all := listed(&n); all[late] != "evil.efi" || all["10.0.1.45"] != "evil.efi" {
		t.Errorf("remembered are %v, want both rogues among them", all)
	}
}

func TestSilentServersAreForgotten(t *testing.T) {
	noted := 0
	n := Servers{Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) { noted++ }}
	n.Heard(answer(1, "old.efi", remembered+time.Minute))
	if all := listed(&n); len(all) != 0 {
		t.Errorf("remembered are %v, want none that was silent for a day", all)
	}
	n.Heard(answer(1, "old.efi", remembered+time.Minute))
	n.Heard(answer(1, "old.efi", 0))
	if all := listed(&n); len(all) != 1 || noted != 3 {
		t.Errorf("remembered are %v, noted %d times; want one, noted again after a day's silence", all, noted)
	}
	n.Heard(answer(1, "old.efi", 0))
	if noted != 3 {
		t.Errorf("noted %d times, want none without a silence", noted)
	}
}

// Who answers with an address of ours is no second pxectl: what this host sends is not heard.
func TestSomebodyWithOurAddress(t *testing.T) {
	us, other := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.66")
	const impostor = "somebody answers with our address 10.77.0.1 on br0, from the MAC 52:54:00:66:00:01, " +
		`and tells machines to boot "snponly.efi"`
	for name, c := range map[string]struct {
		server, source netip.Addr
		impostor       bool
		want           string
	}{
		"as server": {us, other, true, impostor},
		"as source": {other, us, true, impostor},
		"another": {
			other, other, false, `another DHCP server, 10.77.0.66 on br0, tells machines to boot "snponly.efi"`,
		},
	} {
		var log bytes.Buffer
		noted := ""
		n := Servers{
			Log: slog.New(slog.NewTextHandler(&log, nil)), Note: func(e inventory.Event) { noted = e.Text },
			Own: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")} },
		}
		o := n.Heard(dhcpd.Overheard{
			Server: c.server, Source: c.source, From: net.HardwareAddr{0x52, 0x54, 0, 0x66, 0, 1},
			Interface: "br0", Time: time.Now(), Class: "PXEClient", File: "snponly.efi", TFTP: "10.77.0.1",
		})
		if noted != c.want || o.Impostor != c.impostor ||
			strings.Contains(log.String(), "with our address") != c.impostor {
			t.Errorf("%s: noted %q, impostor %v, logged %s; want %q", name, noted, o.Impostor,
				log.String(), c.want)
		}
	}
}
