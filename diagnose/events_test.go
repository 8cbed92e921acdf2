package diagnose

import (
	"strconv"
	"time"

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
