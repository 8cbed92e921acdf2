package dhcpd_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/pxectl/pxectl/dhcpd"
)

// A proxy that sends every boot client to one program, and says what it saw. It needs root.
func Example() {
	server, err := dhcpd.Listen(dhcpd.Config{
		Interfaces: []dhcpd.Interface{{Name: "eno2", Addr: netip.MustParseAddr("192.0.2.1")}},
		Decide: func(_ context.Context, c dhcpd.Client) (dhcpd.Boot, bool) {
			if c.WantsURL() {
				return dhcpd.Boot{URL: "http://192.0.2.1:8080/boot.ipxe"}, true
			}
			return dhcpd.Boot{File: "snponly.efi"}, true
		},
		Observe: func(s dhcpd.Seen) { fmt.Println(s) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := server.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}
