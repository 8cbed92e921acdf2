package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// Each place where a boot can stop has a sentence, a next move and an event that decides, an hour after the
// last event.
func TestWhyABootStopped(t *testing.T) {
	romIPXE := event(0, "dhcp", "DISCOVER from ipxe on port 67: OFFER http://10.77.0.1:8080/boot.ipxe",
		"type", "DISCOVER", "class", "ipxe", "port", "67", "answer", "OFFER", "boot",
		"http://10.77.0.1:8080/boot.ipxe?mac=${netX/mac}")
	took := event(3, "dhcp", "REQUEST from ipxe on port 67: no answer", "type", "REQUEST", "class", "ipxe",
		"port", "67", "selected", "10.77.0.2")
	for name, c := range map[string]struct {
		events      []inventory.Event
		m           inventory.Machine
		stage, next string // beginnings
		decisive    string // beginning of its text
	}{
		"nothing, power unknown": {
			stage: "nothing was seen of it on the wire", next: "is it on, is network boot first",
		},
		"nothing, and the BMC says on": {
			m:     inventory.Machine{Power: inventory.Power{Known: true, On: true, ObservedAt: noon}},
			stage: "its BMC says that it is on (read 1h0m0s ago), and nothing was seen of it on the wire",
			next:  "is network boot first in its boot order",
		},
		"nothing, and the BMC says off": {
			m:     inventory.Machine{Name: "m1", Power: inventory.Power{Known: true, ObservedAt: noon}},
			stage: "its BMC says that it is off", next: "`pxectl power on m1`",
		},
		"its system's own DHCP is no boot": {
			events: []inventory.Event{uefiBoot[10]}, stage: "nothing was seen", next: "is it on",
		},
		"an interface that is not configured": {
			events: []inventory.Event{
				event(0, "dhcp",
					"DISCOVER from uefi-pxe on port 67: no answer: "+
						"interface eno2 is not a provisioning interface", "type", "DISCOVER", "class",
					"uefi-pxe", "port", "67", "interface", "eno2", "unconfigured", "yes"),
			},
			stage:    "its requests arrive on eno2, which is not a provisioning interface",
			next:     "add eno2 to provisioning.interfaces",
			decisive: "DISCOVER",
		},
		"configured and not configured": {
			events: upTo(1, event(1, "dhcp", "DISCOVER", "type", "DISCOVER", "class", "uefi-pxe", "interface",
				"eno2", "unconfigured", "yes")),
			stage: "it has our offer and took no address", next: "does the DHCP server",
		},
		"only another server is heard": {
			events:   []inventory.Event{otherServer},
			stage:    "the DHCP server 10.77.0.2 answers it, and its own requests do not reach us",
			next:     "let UDP 67 in",
			decisive: "OFFER from another",
		},
		"no server gives an address": {
			events:   upTo(1),
			stage:    "it has our offer and took no address",
			next:     "does the DHCP server of this network run",
			decisive: "DISCOVER",
		},
		"no server gives iPXE one": {
			events:   []inventory.Event{romIPXE},
			stage:    "it has our offer and took no address",
			next:     "does the DHCP server",
			decisive: "DISCOVER from ipxe",
		},
		"another server's boot file won": {
			events: upTo(2, otherServer, uefiBoot[2]),
			stage: `another DHCP server, 10.77.0.2, told it to boot "pxelinux.0", ` +
				`and it never asked us for our boot program`,
			next:     "take the boot options (66, 67, next-server) out of 10.77.0.2",
			decisive: "OFFER from another server",
		},
		"neither 4011 nor TFTP": {
			events: upTo(3),
			stage: "it has our offer and an address from 10.77.0.2, " +
				"and neither a request on port 4011 nor one by TFTP came",
			next: "let UDP 4011 and 69 in", decisive: "DISCOVER from uefi-pxe",
		},
		"4011 and no TFTP": {
			events:   upTo(4),
			stage:    "it was told on port 4011 to fetch snponly.efi, and no TFTP request for it came",
			next:     "let UDP 69 in",
			decisive: "REQUEST",
		},
		"a script's URL and no HTTP": {
			events:   []inventory.Event{romIPXE, took},
			stage:    "it was told to load http://10.77.0.1:8080/boot.ipxe, and no request for it came",
			next:     "let the HTTP port (http.port, TCP 8080 by default) in",
			decisive: "DISCOVER from ipxe",
		},
		"left alone": {
			events: []inventory.Event{
				event(0, "dhcp", "DISCOVER from uefi-pxe on port 67: no answer: left alone", "type",
					"DISCOVER", "class", "uefi-pxe", "port", "67", inventory.DataReason,
					string(dhcpd.CodeLeftAlone), inventory.DataWhy, "left alone"),
			},
			stage:    "it asked by DHCP and got no answer: left alone",
			next:     "`pxectl machine add NAME --mac 52:54:00:00:00:01`",
			decisive: "DISCOVER",
		},
		"the size and no more": {
			events:   upTo(5),
			stage:    "it asked by TFTP for snponly.efi and went no further",
			next:     "look at its console",
			decisive: "snponly.efi: asked",
		},
		"another server's file on our TFTP": {
			events: upTo(4, otherServer,
				event(6, "tftp", "pxelinux.0: no such file", "file", "pxelinux.0", "result", "missing")),
			stage:    `it asked by TFTP for "pxelinux.0", which is not ours`,
			next:     "take the boot options (66, 67, next-server) out of 10.77.0.2",
			decisive: "pxelinux.0",
		},
		"no request by TFTP": {
			events:   upTo(4, event(6, "tftp", "malformed request: no mode", "result", "malformed")),
			stage:    "it sent no valid request to the TFTP port (malformed request: no mode)",
			next:     "look at it with `tcpdump -nX udp port 69`",
			decisive: "malformed request",
		},
		"a name with rubbish behind it": { // served: nobody else is suspected
			events: upTo(4,
				event(6, "tftp",
					`undionly.kpxe (asked for with rubbish behind the name, "undionly.kpxea\x11"): `+
						`70001 bytes`,
					"file", "undionly.kpxe", "result", "sent", "bytes", "70001")),
			stage:    "it fetched undionly.kpxe whole, and that never asked for its script",
			next:     "the program does not run: look at its console",
			decisive: "undionly.kpxe (asked for with rubbish",
		},
		"the transfer stalls": {
			events: upTo(5,
				event(15, "tftp", "snponly.efi: the client stopped acknowledging after 1468 bytes", "file",
					"snponly.efi", "result", "stalled", "retransmits", "8")),
			stage:    "it asked for snponly.efi by TFTP, and the transfer stalls",
			next:     "full-size frames get lost on the way: compare the MTU",
			decisive: "snponly.efi: the client stopped",
		},
		"it began anew after a stall": {
			events: append(upTo(5, event(15, "tftp", "snponly.efi: the client stopped acknowledging", "file",
				"snponly.efi", "result", "stalled")),
				event(3595, "dhcp", "DISCOVER", "type", "DISCOVER", "class", "uefi-pxe", "port", "67",
					"answer", "OFFER")),
			stage: "it asked for snponly.efi by TFTP, and the transfer stalls; " +
				"it began another boot 5s ago",
			next:     "full-size frames",
			decisive: "snponly.efi",
		},
		"the program does not run": {
			events:   upTo(6),
			stage:    "it fetched snponly.efi whole, and that never asked for its script",
			next:     "the program does not run: switch Secure Boot off",
			decisive: "snponly.efi: 237568",
		},
		"the program runs and gets no HTTP": {
			events:   upTo(7),
			stage:    "snponly.efi runs and asked by DHCP, and no request for its script came",
			next:     "let the HTTP port",
			decisive: "DISCOVER from ipxe",
		},
		"sent to its disk": {
			events: upTo(7,
				event(9, "http", "boot script: local", "path", "/boot.ipxe", "action", "local", "reason",
					"m1 has its own system")),
			stage:    "its script sent it to its own disk (m1 has its own system)",
			next:     "nothing",
			decisive: "boot script: local",
		},
		"no ramdisk": {
			events: upTo(7,
				event(9, "http", "boot script: wait", "path", "/boot.ipxe", "action", "wait", "reason",
					"the appliance has no ramdisk for amd64")),
			stage:    "it waits in its boot program: the appliance has no ramdisk for amd64",
			next:     "`pxectl ramdisk build`",
			decisive: "boot script: wait",
		},
		"a script and no kernel": {
			events:   upTo(8),
			stage:    "it has its script and fetched no kernel",
			next:     "look at its console",
			decisive: "boot script: agent",
		},
		"a kernel and no ramdisk": {
			events:   upTo(9),
			stage:    "it has the kernel and fetched no ramdisk",
			next:     "look at its console",
			decisive: "GET /ramdisk/amd64/vmlinuz",
		},
		"a ramdisk that was cut off": {
			events: upTo(9,
				event(40, "http", "GET /ramdisk/amd64/initrd: 200, cut off", "path", "/ramdisk/amd64/initrd",
					"status", "200", "cut", "yes", "bytes", "1000", "want", "9000")),
			stage:    "its download of /ramdisk/amd64/initrd was cut off after 1000 of 9000 bytes",
			next:     "packets get lost",
			decisive: "GET /ramdisk/amd64/initrd: 200, cut off",
		},
		"no agent": {
			events: upTo(10),
			stage: "it has kernel and ramdisk, and its agent never called: " +
				"the kernel does not start, or has no driver for the network card (PCI 8086:1533)",
			next: "look at its console", decisive: "GET /ramdisk/amd64/initrd",
		},
		"no agent, and no driver for the card when it was inspected": {
			events: upTo(10),
			m: inventory.Machine{
				Report: &inventory.Report{
					PCI: []inventory.PCIDevice{
						{Class: "020000", Vendor: "8086", Device: "1533", Name: "I210"},
					},
				},
			},
			stage: "it has kernel and ramdisk, and its agent never called: " +
				"the kernel does not start, or has no driver for the network card (8086:1533 I210; " +
				"when it was inspected there was none)",
			next: "look at its console", decisive: "GET /ramdisk/amd64/initrd",
		},
		"a kernel that panics": {
			events: upTo(10,
				says(15, aboutPanic,
					"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100")),
			stage: "it has kernel and ramdisk, and its agent never called: " +
				"the kernel panicked (Attempted to kill init! exitcode=0x00000100)",
			next:     "the agent in the ramdisk ended",
			decisive: "the console says \"Kernel panic - not syncing: Attempted",
		},
		"a kernel that says why it panics": {
			events: upTo(10, says(14, aboutMemory, "Initramfs unpacking failed: write error"),
				says(15, aboutPanic,
					"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
				says(16, aboutKernel, "BUG: after that")),
			stage: `it has kernel and ramdisk, and its agent never called: the kernel panicked (VFS: ` +
				`Unable to mount root fs on unknown-block(0,0)) after "Initramfs unpacking failed: ` +
				`write error"`,
			next: "give the machine more memory", decisive: "the console says \"Kernel panic",
		},
		"an agent that says why it does not call": {
			events: upTo(10,
				says(15, aboutAgent, "pxagent: error: no network card has a driver; build the ramdisk")),
			stage: `it has kernel and ramdisk, and its agent never called; its console says "pxagent: ` +
				`error: no network card has a driver`,
			next:     buildWith,
			decisive: "the console says",
		},
		"an agent that does not trust the server": {
			events: upTo(11,
				says(22, aboutAgent,
					"pxagent: warn: register, will try again err=the server's key is sha256:aa, "+
						"and not the pinned one")),
			stage: `it has kernel and ramdisk, the kernel runs and asked for an address, ` +
				`and its agent never called; its console says "pxagent: warn: register`,
			next:     "is another machine at the appliance's address",
			decisive: "the console says",
		},
		"what was said before the script is past": {
			events: append(upTo(4, says(5, aboutFirmware, "No bootable device."),
				says(5, aboutPanic, "Kernel panic - not syncing: of the system before")), uefiBoot[4:10]...),
			stage:    "it has kernel and ramdisk, and its agent never called: the kernel does not start",
			next:     "look at its console",
			decisive: "GET /ramdisk/amd64/initrd",
		},
		"a boot program that cannot reach us": {
			events: upTo(6,
				says(9, aboutIPXE,
					"http://10.77.0.1:8080/boot.ipxe... Connection timed out (https://ipxe.org/4c0a6092)")),
			stage: `it fetched snponly.efi whole, and that never asked for its script; ` +
				`its console says "http://10.77.0.1:8080/boot.ipxe... ` +
				`Connection timed out (https://ipxe.org/4c0a6092)"`,
			next: "let the HTTP port", decisive: "the console says",
		},
		"a firmware that will not": {
			m:      inventory.Machine{Power: inventory.Power{Known: true, On: true, ObservedAt: noon}},
			events: []inventory.Event{says(5, aboutFirmware, "No bootable device.")},
			stage: `its BMC says that it is on (read 1h0m0s ago), and nothing was seen of it on the wire; ` +
				`its console says "No bootable device."`,
			next:     "is network boot first",
			decisive: "the console says",
		},
		"Secure Boot": {
			events: upTo(6,
				says(9, aboutSecure, `BdsDxe: failed to load Boot0003 "UEFI PXEv4": Access Denied`)),
			stage:    "it fetched snponly.efi whole, and that never asked for its script; its console says",
			next:     "switch Secure Boot off in its firmware",
			decisive: "the console says",
		},
		"no agent, and no console either": {
			m: inventory.Machine{BMC: inventory.BMC{Address: "192.0.2.51"}},
			events: append([]inventory.Event{event(0, "console",
				"no console: serial over LAN is switched off", "none", "serial over LAN is switched off")},
				upTo(9)...),
			stage: "it has the kernel and fetched no ramdisk",
			next: "look at its console: `pxectl console m1` (when pxectl listened: " +
				"serial over LAN is switched off)",
			decisive: "GET /ramdisk/amd64/vmlinuz",
		},
		"a kernel with an address and no agent": {
			events: upTo(11),
			stage: "it has kernel and ramdisk, the kernel runs and asked for an address, " +
				"and its agent never called",
			next:     "let the agents' port (TCP 8443) in",
			decisive: "DISCOVER from other",
		},
		"a nonce that is refused": {
			events: upTo(11,
				event(25, "agent", "registration from 10.77.0.120 refused: the nonce is another boot's",
					inventory.DataRefused, "yes")),
			stage:    "registration from 10.77.0.120 refused",
			next:     "boot it from the network again",
			decisive: "registration",
		},
		"the agent called": {
			events:   uefiBoot,
			stage:    "its agent called",
			next:     "wait",
			decisive: "the agent registered",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.m.Name == "" {
				c.m.Name = "m1"
			}
			got := boot{m: c.m, now: noon.Add(time.Hour)}.stopped(c.events, time.Time{})
			decisive := ""
			if got.decisive != nil {
				decisive = got.decisive.Text
			}
			if !strings.HasPrefix(got.stage, c.stage) || !strings.HasPrefix(got.next, c.next) ||
				!strings.HasPrefix(decisive, c.decisive) || (decisive == "") != (c.decisive == "") &&
				c.decisive != "" {
				t.Errorf("stopped() =\n%q,\nnext %q,\nby %q, want\n%q,\n%q,\n%q", got.stage, got.next,
					decisive, c.stage, c.next, c.decisive)
			}
		})
	}
}
