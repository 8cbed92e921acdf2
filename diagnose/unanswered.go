package diagnose

import (
	"cmp"
	"strconv"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// unanswered is about a machine whose request we did not answer, or answered without a boot program.
func (b boot) unanswered(ev *inventory.Event) breakdown {
	code := dhcpd.Code(ev.Data[inventory.DataReason])
	if code == dhcpd.CodeProbing {
		return inProgress("it asked by DHCP, and the appliance asks by ARP whether its address is free")
	}
	br := breakdown{
		stage:    "it asked by DHCP and got no answer: " + cmp.Or(ev.Data[inventory.DataWhy], ev.Text),
		decisive: ev,
	}
	if ev.Data[inventory.DataAnswer] != "" {
		br.stage = "it asked by DHCP and got an address and nothing to boot: " +
			"there is no boot program for the architecture that it names"
	}
	const another = "choose another boot mode in its firmware: BIOS or 64-bit UEFI, PXE or HTTP over IPv4"
	switch code {
	case dhcpd.CodeLeftAlone:
		br.next = "`pxectl machine add NAME --mac " + string(ev.MAC) +
			"`, or discovery.policy: approve, if it should boot from here"
		if b.m.ID != "" {
			br.next = "it is known, so there is no boot program for the architecture that it names, " +
				"or `boot` in appliance.yaml silences it; " + another
		}
	case dhcpd.CodeNoFree:
		br.next = "`pxectl lease list` shows who has them, `pxectl lease delete` frees one; " +
			"or widen dhcp.server.subnets[].pools"
	case dhcpd.CodeShare:
		admit := "machine add NAME --mac " + string(ev.MAC)
		if b.m.State == inventory.Discovered {
			admit = "machine approve " + b.m.Name
		}
		br.next = "known ones get an address: `pxectl " + admit +
			"`; or delete leases (`pxectl lease list`), or raise dhcp.server.unknown_share"
	case dhcpd.CodeDeclineSelf, dhcpd.CodeDeclineUnproved, dhcpd.CodeDeclineUngiven, dhcpd.CodeReleaseFrom:
		br.next = "it or somebody on the wire sends DHCP messages that do not fit: " +
			"look at the wire with `tcpdump -n port 67`"
	case dhcpd.CodeDeclinedFreed:
		br.next = "it finds every address in use: a network loop, a router that answers ARP for others, " +
			"or addresses of the pool set by hand"
	case dhcpd.CodeDeclined, dhcpd.CodeAllInUse:
		br.next = "somebody sets addresses of the pool by hand: take those out of dhcp.server.subnets[].pools"
	case dhcpd.CodeNoSubnet:
		br.next = "add its network to dhcp.server.subnets in appliance.yaml"
	case dhcpd.CodeAnswerFailed:
		br.next = "`pxectl doctor`: is the interface up? Behind a relay, is there a route to it?"
	case dhcpd.CodeDiskBusy, dhcpd.CodeLeaseFile:
		br.next = "`pxectl doctor`: is the disk of data_dir full or slow?"
	case dhcpd.CodeTooLong:
		br.next = "let the relay say less in option 82 (circuit and remote id), " +
			"or take options out of dhcp.server.subnets[].options"
	case dhcpd.CodeRebooting:
		br.next = "its DHCP server's to answer: " + b.console()
	case dhcpd.CodeBootFile:
		br.next = "correct `boot` in appliance.yaml"
	case dhcpd.CodeNoProgram, dhcpd.CodeNoArch:
		br.next = another
		if n, err := strconv.ParseUint(ev.Data[inventory.DataArch], 10, 16); err == nil &&
			dhcpd.Arch(n).Foreign() {
			br.next = "pxectl boots x86 and 64-bit ARM machines; docs/firmware.md has the architectures"
		}
	default:
		br.next = b.console()
		if ev.Data[inventory.DataAnswer] != "" {
			br.next = another
		}
	}
	return br
}
