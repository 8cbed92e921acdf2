package diagnose

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const testMAC = inventory.MAC("52:54:00:00:00:01")

// event is an event as the boot plane's observers write it: kind, then pairs of data.
func event(second int, kind inventory.EventKind, text string, pairs ...string) inventory.Event {
	e := inventory.Event{
		Seq: uint64(1000 + second), At: noon.Add(time.Duration(second) * time.Second), MAC: testMAC,
		Kind: kind, Text: text, Data: map[string]string{},
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e.Data[pairs[i]] = pairs[i+1]
		}
	}
	return e
}

// uefiBoot is a UEFI machine's boot, event by event, as in docs/boot-story.md.
var uefiBoot = []inventory.Event{
	event(0, "dhcp", "DISCOVER from uefi-pxe (x86-64 UEFI) on port 67: OFFER snponly.efi", "type", "DISCOVER",
		"class", "uefi-pxe", "port", "67", "answer", "OFFER", "boot", "snponly.efi"),
	event(1, "dhcp", "OFFER from another server, 10.77.0.2: the address 10.77.0.120", "server", "10.77.0.2",
		"type", "OFFER", "address", "10.77.0.120"),
	event(4, "dhcp", "REQUEST from uefi-pxe on port 67: no answer: takes the address offered by 10.77.0.2",
		"type", "REQUEST", "class", "uefi-pxe", "port", "67", "selected", "10.77.0.2"),
	event(5, "dhcp", "REQUEST from uefi-pxe on port 4011: ACK snponly.efi", "type", "REQUEST", "class",
		"uefi-pxe", "port", "4011", "answer", "ACK", "boot", "snponly.efi"),
	event(6, "tftp", "snponly.efi: asked for its size", "file", "snponly.efi", "result", "size"),
	event(7, "tftp", "snponly.efi: 237568 bytes", "file", "snponly.efi", "result", "sent", "bytes", "237568"),
	event(8, "dhcp", "DISCOVER from ipxe on port 67: OFFER http://10.77.0.1:8080/boot.ipxe", "type",
		"DISCOVER", "class", "ipxe", "port", "67", "answer", "OFFER", "boot",
		"http://10.77.0.1:8080/boot.ipxe?mac=${netX/mac}"),
	event(9, "http", "boot script: agent (m1)", "path", "/boot.ipxe", "status", "200", "action", "agent",
		"reason", "m1", "nic", "8086:1533"),
	event(10, "http", "GET /ramdisk/amd64/vmlinuz: 200", "path", "/ramdisk/amd64/vmlinuz", "status", "200"),
	event(11, "http", "GET /ramdisk/amd64/initrd: 200", "path", "/ramdisk/amd64/initrd", "status", "200"),
	event(20, "dhcp", "DISCOVER from other on port 67: no answer: not a network boot client", "type",
		"DISCOVER", "class", "other", "port", "67"),
	event(25, "agent", "the agent registered from 10.77.0.120, 9.1 s after its kernel started"),
}

// says is a complaint on the console.
func says(second int, about Subject, quote string) inventory.Event {
	return event(second, "console", "the console says "+strconv.Quote(quote), "complaint", string(about),
		"quote", quote)
}

// upTo is the first n events of uefiBoot, and then others.
func upTo(n int, more ...inventory.Event) []inventory.Event {
	return append(append([]inventory.Event{}, uefiBoot[:n]...), more...)
}

var otherServer = event(2, "dhcp",
	`OFFER from another server, 10.77.0.2: the address 10.77.0.120, and to boot "pxelinux.0"`, "server",
	"10.77.0.2", "type", "OFFER", "address", "10.77.0.120", "boot", "pxelinux.0")

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
				event(0, "dhcp", "DISCOVER from uefi-pxe on port 67: no answer: interface eno2 is not a provisioning interface", "type", "DISCOVER", "class", "uefi-pxe", "port", "67", "interface", "eno2", "unconfigured", "yes"),
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
			events: upTo(1), stage: "it has our offer and took no address", next: "does the DHCP server of this network run", decisive: "DISCOVER",
		},
		"no server gives iPXE one": {events: []inventory.Event{romIPXE}, stage: "it has our offer and took no address", next: "does the DHCP server", decisive: "DISCOVER from ipxe"},
		"another server's boot file won": {
			events: upTo(2, otherServer, uefiBoot[2]),
			stage:  `another DHCP server, 10.77.0.2, told it to boot "pxelinux.0", and it never asked us for our boot program`,
			next:   "take the boot options (66, 67, next-server) out of 10.77.0.2", decisive: "OFFER from another server",
		},
		"neither 4011 nor TFTP": {
			events: upTo(3), stage: "it has our offer and an address from 10.77.0.2, and neither a request on port 4011 nor one by TFTP came",
			next: "let UDP 4011 and 69 in", decisive: "DISCOVER from uefi-pxe",
		},
		"4011 and no TFTP":           {events: upTo(4), stage: "it was told on port 4011 to fetch snponly.efi, and no TFTP request for it came", next: "let UDP 69 in", decisive: "REQUEST"},
		"a script's URL and no HTTP": {events: []inventory.Event{romIPXE, took}, stage: "it was told to load http://10.77.0.1:8080/boot.ipxe, and no request for it came", next: "let the HTTP port (http.port, TCP 8080 by default) in", decisive: "DISCOVER from ipxe"},
		"left alone": {
			events: []inventory.Event{event(0, "dhcp", "DISCOVER from uefi-pxe on port 67: no answer: left alone", "type", "DISCOVER", "class", "uefi-pxe", "port", "67", inventory.DataReason, string(dhcpd.CodeLeftAlone), inventory.DataWhy, "left alone")},
			stage:  "it asked by DHCP and got no answer: left alone", next: "`pxectl machine add NAME --mac 52:54:00:00:00:01`", decisive: "DISCOVER",
		},
		"the size and no more": {events: upTo(5), stage: "it asked by TFTP for snponly.efi and went no further", next: "look at its console", decisive: "snponly.efi: asked"},
		"another server's file on our TFTP": {
			events: upTo(4, otherServer, event(6, "tftp", "pxelinux.0: no such file", "file", "pxelinux.0", "result", "missing")),
			stage:  `it asked by TFTP for "pxelinux.0", which is not ours`, next: "take the boot options (66, 67, next-server) out of 10.77.0.2", decisive: "pxelinux.0",
		},
		"no request by TFTP": {
			events: upTo(4, event(6, "tftp", "malformed request: no mode", "result", "malformed")),
			stage:  "it sent no valid request to the TFTP port (malformed request: no mode)", next: "look at it with `tcpdump -nX udp port 69`", decisive: "malformed request",
		},
		"a name with rubbish behind it": { // served: nobody else is suspected
			events: upTo(4, event(6, "tftp", `undionly.kpxe (asked for with rubbish behind the name, "undionly.kpxea\x11"): 70001 bytes`, "file", "undionly.kpxe", "result", "sent", "bytes", "70001")),
			stage:  "it fetched undionly.kpxe whole, and that never asked for its script", next: "the program does not run: look at its console", decisive: "undionly.kpxe (asked for with rubbish",
		},
		"the transfer stalls": {
			events: upTo(5, event(15, "tftp", "snponly.efi: the client stopped acknowledging after 1468 bytes", "file", "snponly.efi", "result", "stalled", "retransmits", "8")),
			stage:  "it asked for snponly.efi by TFTP, and the transfer stalls", next: "full-size frames get lost on the way: compare the MTU", decisive: "snponly.efi: the client stopped",
		},
		"it began anew after a stall": {
			events: append(upTo(5, event(15, "tftp", "snponly.efi: the client stopped acknowledging", "file", "snponly.efi", "result", "stalled")), event(3595, "dhcp", "DISCOVER", "type", "DISCOVER", "class", "uefi-pxe", "port", "67", "answer", "OFFER")),
			stage:  "it asked for snponly.efi by TFTP, and the transfer stalls; it began another boot 5s ago", next: "full-size frames", decisive: "snponly.efi",
		},
		"the program does not run":          {events: upTo(6), stage: "it fetched snponly.efi whole, and that never asked for its script", next: "the program does not run: switch Secure Boot off", decisive: "snponly.efi: 237568"},
		"the program runs and gets no HTTP": {events: upTo(7), stage: "snponly.efi runs and asked by DHCP, and no request for its script came", next: "let the HTTP port", decisive: "DISCOVER from ipxe"},
		"sent to its disk":                  {events: upTo(7, event(9, "http", "boot script: local", "path", "/boot.ipxe", "action", "local", "reason", "m1 has its own system")), stage: "its script sent it to its own disk (m1 has its own system)", next: "nothing", decisive: "boot script: local"},
		"no ramdisk":                        {events: upTo(7, event(9, "http", "boot script: wait", "path", "/boot.ipxe", "action", "wait", "reason", "the appliance has no ramdisk for amd64")), stage: "it waits in its boot program: the appliance has no ramdisk for amd64", next: "`pxectl ramdisk build`", decisive: "boot script: wait"},
		"a script and no kernel":            {events: upTo(8), stage: "it has its script and fetched no kernel", next: "look at its console", decisive: "boot script: agent"},
		"a kernel and no ramdisk":           {events: upTo(9), stage: "it has the kernel and fetched no ramdisk", next: "look at its console", decisive: "GET /ramdisk/amd64/vmlinuz"},
		"a ramdisk that was cut off": {
			events: upTo(9, event(40, "http", "GET /ramdisk/amd64/initrd: 200, cut off", "path", "/ramdisk/amd64/initrd", "status", "200", "cut", "yes", "bytes", "1000", "want", "9000")),
			stage:  "its download of /ramdisk/amd64/initrd was cut off after 1000 of 9000 bytes", next: "packets get lost", decisive: "GET /ramdisk/amd64/initrd: 200, cut off",
		},
		"no agent": {
			events: upTo(10), stage: "it has kernel and ramdisk, and its agent never called: the kernel does not start, or has no driver for the network card (PCI 8086:1533)",
			next: "look at its console", decisive: "GET /ramdisk/amd64/initrd",
		},
		"no agent, and no driver for the card when it was inspected": {
			events: upTo(10), m: inventory.Machine{Report: &inventory.Report{PCI: []inventory.PCIDevice{{Class: "020000", Vendor: "8086", Device: "1533", Name: "I210"}}}},
			stage: "it has kernel and ramdisk, and its agent never called: the kernel does not start, or has no driver for the network card (8086:1533 I210; when it was inspected there was none)",
			next:  "look at its console", decisive: "GET /ramdisk/amd64/initrd",
		},
		"a kernel that panics": {
			events: upTo(10, says(15, aboutPanic, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100")),
			stage:  "it has kernel and ramdisk, and its agent never called: the kernel panicked (Attempted to kill init! exitcode=0x00000100)", next: "the agent in the ramdisk ended",
			decisive: "the console says \"Kernel panic - not syncing: Attempted",
		},
		"a kernel that says why it panics": {
			events: upTo(10, says(14, aboutMemory, "Initramfs unpacking failed: write error"), says(15, aboutPanic, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"), says(16, aboutKernel, "BUG: after that")),
			stage:  `it has kernel and ramdisk, and its agent never called: the kernel panicked (VFS: Unable to mount root fs on unknown-block(0,0)) after "Initramfs unpacking failed: write error"`,
			next:   "give the machine more memory", decisive: "the console says \"Kernel panic",
		},
		"an agent that says why it does not call": {
			events: upTo(10, says(15, aboutAgent, "pxagent: error: no network card has a driver; build the ramdisk")),
			stage:  `it has kernel and ramdisk, and its agent never called; its console says "pxagent: error: no network card has a driver`, next: buildWith, decisive: "the console says",
		},
		"an agent that does not trust the server": {
			events: upTo(11, says(22, aboutAgent, "pxagent: warn: register, will try again err=the server's key is sha256:aa, and not the pinned one")),
			stage:  `it has kernel and ramdisk, the kernel runs and asked for an address, and its agent never called; its console says "pxagent: warn: register`, next: "is another machine at the appliance's address", decisive: "the console says",
		},
		"what was said before the script is past": {
			events: append(upTo(4, says(5, aboutFirmware, "No bootable device."), says(5, aboutPanic, "Kernel panic - not syncing: of the system before")), uefiBoot[4:10]...),
			stage:  "it has kernel and ramdisk, and its agent never called: the kernel does not start", next: "look at its console", decisive: "GET /ramdisk/amd64/initrd",
		},
		"a boot program that cannot reach us": {
			events: upTo(6, says(9, aboutIPXE, "http://10.77.0.1:8080/boot.ipxe... Connection timed out (https://ipxe.org/4c0a6092)")),
			stage:  `it fetched snponly.efi whole, and that never asked for its script; its console says "http://10.77.0.1:8080/boot.ipxe... Connection timed out (https://ipxe.org/4c0a6092)"`,
			next:   "let the HTTP port", decisive: "the console says",
		},
		"a firmware that will not": {
			m: inventory.Machine{Power: inventory.Power{Known: true, On: true, ObservedAt: noon}}, events: []inventory.Event{says(5, aboutFirmware, "No bootable device.")},
			stage: `its BMC says that it is on (read 1h0m0s ago), and nothing was seen of it on the wire; its console says "No bootable device."`, next: "is network boot first", decisive: "the console says",
		},
		"Secure Boot": {
			events: upTo(6, says(9, aboutSecure, `BdsDxe: failed to load Boot0003 "UEFI PXEv4": Access Denied`)),
			stage:  "it fetched snponly.efi whole, and that never asked for its script; its console says", next: "switch Secure Boot off in its firmware", decisive: "the console says",
		},
		"no agent, and no console either": {
			m:      inventory.Machine{BMC: inventory.BMC{Address: "192.0.2.51"}},
			events: append([]inventory.Event{event(0, "console", "no console: serial over LAN is switched off", "none", "serial over LAN is switched off")}, upTo(9)...),
			stage:  "it has the kernel and fetched no ramdisk", next: "look at its console: `pxectl console m1` (when pxectl listened: serial over LAN is switched off)", decisive: "GET /ramdisk/amd64/vmlinuz",
		},
		"a kernel with an address and no agent": {events: upTo(11), stage: "it has kernel and ramdisk, the kernel runs and asked for an address, and its agent never called", next: "let the agents' port (TCP 8443) in", decisive: "DISCOVER from other"},
		"a nonce that is refused":               {events: upTo(11, event(25, "agent", "registration from 10.77.0.120 refused: the nonce is another boot's", inventory.DataRefused, "yes")), stage: "registration from 10.77.0.120 refused", next: "boot it from the network again", decisive: "registration"},
		"the agent called":                      {events: uefiBoot, stage: "its agent called", next: "wait", decisive: "the agent registered"},
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
			if !strings.HasPrefix(got.stage, c.stage) || !strings.HasPrefix(got.next, c.next) || !strings.HasPrefix(decisive, c.decisive) || (decisive == "") != (c.decisive == "") && c.decisive != "" {
				t.Errorf("stopped() =\n%q,\nnext %q,\nby %q, want\n%q,\n%q,\n%q", got.stage, got.next, decisive, c.stage, c.next, c.decisive)
			}
		})
	}
}

// While a boot is under way, the next move is to wait, at each of its events.
func TestABootUnderWayAlarmsNobody(t *testing.T) {
	for n := range len(uefiBoot) {
		events := upTo(n)
		now := noon.Add(time.Minute)
		if n > 0 {
			now = events[n-1].At.Add(5 * time.Second)
		}
		got := boot{m: inventory.Machine{Name: "m1"}, now: now, started: noon}.stopped(events, noon.Add(-time.Second))
		if got.next != "wait" {
			t.Errorf("5 s after event %d: %q, next %q, want to be told to wait", n, got.stage, got.next)
		}
	}
}

// Firmware and boot programs complain and go on: the next move is still to wait. A kernel that has panicked
// does not go on.
func TestWhatAConsoleSaysWhileABootIsUnderWay(t *testing.T) {
	grumble := says(9, aboutIPXE, "tftp://10.77.0.1/autoexec.ipxe... Not found (https://ipxe.org/2d126001)")
	again := grumble
	again.Count, again.Since = 7, grumble.At.Add(-time.Minute)
	for name, c := range map[string]struct {
		said inventory.Event
		next string
	}{
		"grumbles":             {grumble, "wait"},
		"the same seven times": {again, "look at its console"},
		"panics":               {says(12, aboutPanic, "Kernel panic - not syncing: Fatal exception"), "a fault of the kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			got := boot{m: inventory.Machine{Name: "m1"}, now: noon.Add(15 * time.Second), started: noon}.stopped(upTo(10, c.said), noon.Add(-time.Second))
			if !strings.HasPrefix(got.next, c.next) {
				t.Errorf("%q, next %q, want %q", got.stage, got.next, c.next)
			}
		})
	}
}

func TestDiagnose(t *testing.T) {
	d := func(step inventory.Step, outcome inventory.Outcome, began, acted int) *inventory.Deployment {
		r := inventory.StepRecord{Step: step, Attempt: 1, BeganAt: noon.Add(time.Duration(began) * time.Second), Deadline: noon.Add(time.Hour)}
		if acted > 0 {
			r.ActedAt = noon.Add(time.Duration(acted) * time.Second)
		}
		return &inventory.Deployment{ID: "d-1", Step: step, Outcome: outcome, History: []inventory.StepRecord{r}}
	}
	megaraid := &inventory.Report{PCI: []inventory.PCIDevice{{Class: "010400", Vendor: "1000", Device: "10e2", Name: "MegaRAID 12GSAS/PCIe"}, {Class: "010601", Driver: "ahci"}}}
	bmc := inventory.BMC{Address: "192.0.2.51"}
	for name, c := range map[string]struct {
		m              inventory.Machine
		d              *inventory.Deployment
		events         []inventory.Event
		second         int
		sentence, next string // beginnings
	}{
		"just deployed": {
			m: inventory.Machine{State: inventory.Deploying}, d: d(inventory.Validate, inventory.Running, 0, 0), second: 1,
			sentence: "m1 has been at validate of deployment d-1 for 1s", next: "wait",
		},
		"being switched": {
			m: inventory.Machine{State: inventory.Deploying, BMC: bmc}, d: d(inventory.BootAgent, inventory.Running, 0, 0), second: 3,
			sentence: "m1 is being switched off and on by its BMC", next: "wait",
		},
		"just switched on": {
			m: inventory.Machine{State: inventory.Deploying, BMC: bmc}, d: d(inventory.BootAgent, inventory.Running, 0, 4), second: 10,
			sentence: "m1 has been booting into the agent for 10s (attempt 1 of 3): it was switched on 6s ago and nothing was seen of it yet, which is normal", next: "wait",
		},
		"on for long, and no event": {
			m: inventory.Machine{State: inventory.Deploying, BMC: bmc, Power: inventory.Power{Known: true, On: true, ObservedAt: noon}}, d: d(inventory.BootAgent, inventory.Running, 0, 4), second: 600,
			sentence: "m1 has been booting into the agent for 10m0s (attempt 1 of 3): its BMC says that it is on (read 10m0s ago), and nothing was seen", next: "is network boot first",
		},
		"events of an earlier boot do not count": {
			m: inventory.Machine{State: inventory.Deploying, BMC: bmc}, d: d(inventory.BootAgent, inventory.Running, 100, 104), events: uefiBoot, second: 110,
			sentence: "m1 has been booting into the agent for 10s (attempt 1 of 3): it was switched on 6s ago and nothing was seen of it yet", next: "wait",
		},
		"failed to boot the agent": {
			m: inventory.Machine{State: inventory.Failed, Failure: &inventory.Failure{Step: "boot-agent", Reason: "no proof within 30m0s", Hint: "…"}}, d: d(inventory.BootAgent, inventory.FailedOut, 0, 1), events: upTo(3), second: 3600,
			sentence: "m1 failed at boot-agent: no proof within 30m0s; in its last attempt, it has our offer and an address from 10.77.0.2, and neither", next: "let UDP 4011 and 69 in",
		},
		"its BMC did not start it": {
			m: inventory.Machine{State: inventory.Failed, BMC: bmc, Failure: &inventory.Failure{Step: "boot-agent", Reason: "power off: no answer", Hint: "look at its cable"}}, d: d(inventory.BootAgent, inventory.FailedOut, 0, 0), second: 60,
			sentence: "m1 failed at boot-agent: power off: no answer.", next: "look at its cable",
		},
		"no driver for its disks": {
			m: inventory.Machine{State: inventory.Failed, Failure: &inventory.Failure{Step: "validate", Reason: "no disk"}, Report: megaraid}, d: d(inventory.Validate, inventory.FailedOut, 0, 0),
			sentence: "m1 failed at validate: no disk; the agent has no driver for 1000:10e2 MegaRAID 12GSAS/PCIe.", next: "put the driver into the ramdisk",
		},
		"available without a disk": {
			m:        inventory.Machine{State: inventory.Available, Report: megaraid},
			sentence: "m1 is available and has no disk to deploy to: the agent has no driver for 1000:10e2", next: "put the driver into the ramdisk",
		},
		"a disk is there, whatever else has no driver": {
			m:        inventory.Machine{State: inventory.Available, LastProof: "inspect", Report: &inventory.Report{PCI: megaraid.PCI, Disks: []inventory.Disk{{Name: "sda"}}}},
			sentence: "m1 is available, as it should be", next: "nothing to do",
		},
		"deployed, and cut off by a run that was cancelled": {
			m: inventory.Machine{State: inventory.Deployed, Interrupted: &inventory.Interruption{Run: "d-2", At: noon, On: true}}, second: 120,
			sentence: "m1 is deployed, and its system was cut off 2m0s ago: the machine was switched off and on for d-2, which went no further. The system has not called home since.",
			next:     "look at its console: `pxectl console m1`",
		},
		"deployed, and cut off in the middle of a boot": {
			m: inventory.Machine{State: inventory.Deployed, Interrupted: &inventory.Interruption{Run: "d-2", At: noon}}, second: 120,
			sentence: "m1 is deployed, and its system was cut off 2m0s ago: the machine was switched off (and not on again) for d-2",
			next:     "`pxectl power on m1`",
		},
		"enrolled, and its BMC rejects the password": {
			m:        inventory.Machine{State: inventory.Enrolled, BMC: inventory.BMC{Address: "192.0.2.7", Refused: true, Error: "m1: power 192.0.2.7:623: user or password rejected"}},
			sentence: "m1 is enrolled and its agent has not called yet: nothing was seen of it on the wire; and its BMC is in trouble: m1: power 192.0.2.7:623: user or password rejected.",
			next:     "set its right credentials with `pxectl machine edit m1 --bmc-user USER --bmc-password-file FILE`, then `pxectl power status m1` asks it again; is it on",
		},
		"available, and its BMC rejects the password": {
			m:        inventory.Machine{State: inventory.Available, BMC: inventory.BMC{Address: "192.0.2.7", Refused: true, Error: "m1: power 192.0.2.7:623: user or password rejected"}},
			sentence: "m1 is available, but its BMC is in trouble: m1: power 192.0.2.7:623: user or password rejected.",
			next:     "set its right credentials with `pxectl machine edit m1",
		},
		"enrolled, and on a port that is not ours": {
			m:        inventory.Machine{State: inventory.Enrolled},
			events:   []inventory.Event{event(0, "dhcp", "DISCOVER", "type", "DISCOVER", "class", "bios-pxe", "interface", "eno2", "unconfigured", "yes")},
			sentence: "m1 is enrolled and its agent has not called yet: its requests arrive on eno2", next: "add eno2",
		},
		"its system just started": {
			m: inventory.Machine{State: inventory.Deploying}, d: d(inventory.VerifyOS, inventory.Running, 0, 0), second: 10,
			sentence: "m1 was started from its disk 10s ago, and its system has not phoned home yet; that takes a minute or more", next: "wait",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.m.Name = "m1"
			got := diagnose(facts{m: c.m, d: c.d}, c.events, noon.Add(time.Duration(c.second)*time.Second))
			if !strings.HasPrefix(got.Sentence, c.sentence) || !strings.HasPrefix(got.Next, c.next) {
				t.Errorf("diagnose() =\n%q,\nnext %q, want\n%q,\n%q", got.Sentence, got.Next, c.sentence, c.next)
			}
		})
	}
}

// The event that decided is in the evidence, even when many followed it.
func TestTheDecisiveEventIsEvidence(t *testing.T) {
	events := upTo(2, otherServer, uefiBoot[2])
	for i := range 40 {
		e := event(100+i, "bmc", "power is read: on")
		e.Data = nil
		events = append(events, e)
	}
	got := diagnose(facts{m: inventory.Machine{Name: "m1", State: inventory.Enrolled}}, events, noon.Add(time.Hour))
	if len(got.Evidence) != evidence || got.Evidence[0].Text != otherServer.Text {
		t.Errorf("evidence begins with %q and has %d events, want %q and %d", got.Evidence[0].Text, len(got.Evidence), otherServer.Text, evidence)
	}
}
