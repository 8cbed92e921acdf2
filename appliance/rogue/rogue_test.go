package rogue

import (
	"bytes"
	"log/slog"
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
			heard: []dhcpd.Overheard{{Server: lan, Addr: us}, {Server: lan, Addr: us, File: "pxelinux.0"}, {Server: lan, Addr: us, File: "pxelinux.0"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`,
		},
		"a proxy with a menu": {heard: []dhcpd.Overheard{{Server: lan, Class: "PXEClient"}}, want: `another DHCP server, 10.77.0.2 on br0, tells machines to boot "PXEClient"`},
		"a second pxectl, to firmware": {
			heard: []dhcpd.Overheard{{Server: us, Class: "PXEClient", File: "snponly.efi", TFTP: "10.77.0.9"}},
			want:  `another pxectl, 10.77.0.9 on br0, tells machines to boot "snponly.efi"`,
		},
		"a second pxectl, to an iPXE": {
			heard: []dhcpd.Overheard{{Server: us, Class: "PXEClient", File: "http://10.77.0.9:8080/boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}"}},
			want:  `another pxectl, 10.77.0.9 on br0, tells machines to boot "http://10.77.0.9:8080/boot.ipxe"`,
		},
		"dnsmasq with the same program": {
			heard: []dhcpd.Overheard{{Server: lan, Addr: us, File: "undionly.kpxe"}},
			want:  `another DHCP server, 10.77.0.2 on br0, tells machines to boot "undionly.kpxe"`,
		},
		"a hostile name":        {heard: []dhcpd.Overheard{{Server: lan, File: "\x1b[2Jx"}}, want: `another DHCP server, 10.77.0.2 on br0, tells machines to boot "[2Jx"`},
		"while we take no part": {heard: []dhcpd.Overheard{{Server: lan, File: "pxelinux.0"}}, off: true},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			var noted []string
			n := Servers{Log: slog.New(slog.NewTextHandler(&log, nil)), Off: c.off, Note: func(e inventory.Event) { noted = append(noted, e.Text) }}
			for _, o := range c.heard {
				o.Interface, o.Time = "br0", time.Now()
				n.Heard(o)
			}
			if got := strings.Join(noted, "; "); got != c.want {
				t.Errorf("noted %q, want %q", got, c.want)
			}
			if logged := strings.Count(log.String(), "level=WARN"); (logged == 1) != (c.want != "") {
				t.Errorf("logged %d warnings, want one with an event and none without:\n%s", logged, log.String())
			}
			if all, _ := n.List(); len(all) != 1 {
				t.Errorf("List() = %+v, want one server", all)
			}
		})
	}
}

func TestForgedServersAreBounded(t *testing.T) {
	n := Servers{Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) {}}
	for i := range 1000 {
		n.Heard(dhcpd.Overheard{Server: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Interface: "br0", File: "x"})
	}
	if all, _ := n.List(); len(all) != maxServers {
		t.Errorf("%d servers are remembered, want %d", len(all), maxServers)
	}
}
