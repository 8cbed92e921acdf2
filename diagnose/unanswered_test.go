package diagnose

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/inventory"
)

// Each reason for silence has a next move of its own.
func TestUnanswered(t *testing.T) {
	given := netip.MustParseAddr("10.77.0.100")
	for name, c := range map[string]struct {
		why    dhcpd.Reason
		answer string // of ours
		m      inventory.Machine
		class  string
		stage  string // "" is why with what goes before it
		next   string
	}{
		"unknown, and strangers are left alone": {
			why:  dhcpd.Reason{Code: dhcpd.CodeLeftAlone},
			next: "`pxectl machine add NAME --mac 52:54:00:00:00:01`",
		},
		"known, and left alone": {
			why:  dhcpd.Reason{Code: dhcpd.CodeLeftAlone},
			m:    inventory.Machine{ID: "m-1"},
			next: "it is known, so there is no boot program",
		},
		"the pool is empty": {
			why: dhcpd.Reason{Code: dhcpd.CodeNoFree, Err: leases.ErrExhausted},
			next: "`pxectl lease list` shows who has them, `pxectl lease delete` frees one; " +
				"or widen dhcp.server.subnets[].pools",
		},
		"strangers have their share": {
			why: dhcpd.Reason{Code: dhcpd.CodeShare, Err: leases.ErrShare},
			next: "known ones get an address: `pxectl machine add NAME --mac 52:54:00:00:00:01`; " +
				"or delete leases",
		},
		"strangers have their share, and it is known": {
			why:  dhcpd.Reason{Code: dhcpd.CodeShare, Err: leases.ErrShare},
			m:    inventory.Machine{State: inventory.Discovered},
			next: "known ones get an address: `pxectl machine approve m1`; or delete leases",
		},
		"addresses set by hand": {
			why: dhcpd.Reason{
				Code: dhcpd.CodeNoFree,
				Addr: given,
				MAC:  net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9},
				Err:  leases.ErrExhausted,
			},
			next: "`pxectl lease list`",
		},
		"a client that declines all": {
			why:  dhcpd.Reason{Code: dhcpd.CodeDeclinedFreed, Addr: given, Other: given},
			next: "it finds every address in use: a network loop",
		},
		"a DECLINE in its name": {
			why:  dhcpd.Reason{Code: dhcpd.CodeDeclineSelf, Addr: given},
			next: "it or somebody on the wire sends DHCP messages that do not fit",
		},
		"a late DECLINE": {
			why:  dhcpd.Reason{Code: dhcpd.CodeDeclineUngiven, Addr: given},
			next: "it or somebody on the wire sends DHCP messages that do not fit",
		},
		"a RELEASE in its name": {
			why:  dhcpd.Reason{Code: dhcpd.CodeReleaseFrom, Addr: given, Other: given},
			next: "it or somebody on the wire sends DHCP messages that do not fit",
		},
		"three addresses set by hand": {
			why: dhcpd.Reason{Code: dhcpd.CodeAllInUse}, next: "somebody sets addresses of the pool by hand",
		},
		"no subnet": {
			why:  dhcpd.Reason{Code: dhcpd.CodeNoSubnet, Name: "eno1"},
			next: "add its network to dhcp.server.subnets",
		},
		"no subnet for a relay": {
			why:  dhcpd.Reason{Code: dhcpd.CodeNoSubnet, Addr: given},
			next: "add its network to dhcp.server.subnets",
		},
		"a slow disk": {
			why:  dhcpd.Reason{Code: dhcpd.CodeDiskBusy, Err: leases.ErrBusy},
			next: "`pxectl doctor`: is the disk",
		},
		"a full disk": {
			why:  dhcpd.Reason{Code: dhcpd.CodeLeaseFile, Err: leases.ErrWrite},
			next: "`pxectl doctor`: is the disk",
		},
		"no way back": {
			why:  dhcpd.Reason{Code: dhcpd.CodeAnswerFailed, Name: "10.78.0.1:67", Err: unix.ENETUNREACH},
			next: "`pxectl doctor`: is the interface up",
		},
		"a probe": {
			why:   dhcpd.Reason{Code: dhcpd.CodeProbing},
			stage: "it asked by DHCP, and the appliance asks by ARP whether its address is free",
			next:  "wait",
		},
		"a long URL": {
			why:  dhcpd.Reason{Code: dhcpd.CodeBootFile, Err: errors.New("boot URL")},
			next: "correct `boot` in appliance.yaml",
		},
		"a relay that says much": {
			why:  dhcpd.Reason{Code: dhcpd.CodeTooLong, Err: errors.New("the answer has 600 bytes")},
			next: "let the relay say less in option 82",
		},
		"RISC-V": {
			why:  dhcpd.Reason{Code: dhcpd.CodeNoProgram, Arch: dhcpd.ArchRISCV64},
			next: "pxectl boots x86 and 64-bit ARM machines",
		},
		"32-bit ARM": {
			why:  dhcpd.Reason{Code: dhcpd.CodeNoProgram, Arch: dhcpd.ArchARM32},
			next: "pxectl boots x86 and 64-bit ARM machines",
		},
		"32-bit UEFI": {
			class: "other",
			why:   dhcpd.Reason{Code: dhcpd.CodeNoProgram, Arch: dhcpd.ArchUEFI32},
			next:  "choose another boot mode in its firmware",
		},
		"32-bit UEFI, which got an address": {
			class:  "other",
			answer: "OFFER",
			why:    dhcpd.Reason{Code: dhcpd.CodeNoProgram, Arch: dhcpd.ArchUEFI32},
			stage:  "it asked by DHCP and got an address and nothing to boot",
			next:   "choose another boot mode in its firmware",
		},
		"something new": {why: dhcpd.Reason{Code: "a reason of tomorrow"}, next: "look at its console"},
	} {
		t.Run(name, func(t *testing.T) {
			c.m.Name = "m1"
			class, stage := cmp.Or(c.class, "uefi-pxe"), cmp.Or(c.stage,
				"it asked by DHCP and got no answer: "+c.why.String())
			e := event(0, inventory.KindDHCP, "DISCOVER", inventory.DataType, "DISCOVER", inventory.DataClass,
				class, inventory.DataPort, "67", inventory.DataAnswer, c.answer,
				inventory.DataReason, string(c.why.Code), inventory.DataWhy, c.why.String(),
				inventory.DataArch, strconv.Itoa(int(c.why.Arch)))
			if class == "other" {
				e.Data["unserved"] = "yes"
			}
			got := boot{m: c.m, now: noon.Add(time.Hour)}.stopped([]inventory.Event{e}, time.Time{})
			if !strings.HasPrefix(got.stage, stage) || !strings.HasPrefix(got.next, c.next) {
				t.Errorf("stopped() =\n%q,\nnext %q, want\n%q,\n%q", got.stage, got.next, stage, c.next)
			}
		})
	}
}
