package diagnose

import (
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A trace is how far one network boot came: the last event of each kind of sign. The boot plane's observers put these facts
// into the data of events:
//
//	dhcp   of a client: type, class (of dhcpd), port, interface, answer and boot (what we said), selected (whose address
//	       it takes), unconfigured (the interface is not a provisioning interface), unserved (it is a boot client, and of
//	       no kind that we have a program for)
//	dhcp   of another server: server, type, address, boot, next, interface
//	tftp   file, result (sent, size, missing, stalled, failed), bytes, retransmits, blksize
//	http   path, status, bytes, cut and want; of a boot script action, reason and nic (PCI vendor and device)
//	console complaint (a Subject) and quote, the line that it was heard in; or none, why there is no console
type trace struct {
	last time.Time // of the client's own signs

	foreign *inventory.Event // a request on an interface that is not ours to serve
	unheard *inventory.Event // a request that we did not answer, or could not with a boot program
	offered *inventory.Event // our offer to firmware
	told    *inventory.Event // our answer on port 4011, or to an HTTP boot client
	took    *inventory.Event // its request to a server for an address
	lease   *inventory.Event // another server's answer that boots nothing
	rival   *inventory.Event // another server's answer that tells it what to boot
	tftp    *inventory.Event
	program *inventory.Event // a boot program that arrived whole
	ipxe    *inventory.Event // the boot program's own DHCP
	script  *inventory.Event
	kernel  *inventory.Event
	initrd  *inventory.Event
	cut     *inventory.Event // a download that ended before its time
	system  *inventory.Event // DHCP of what was booted
	agent   *inventory.Event
	refused *inventory.Event
	said    []*inventory.Event // complaints on its console
	deaf    *inventory.Event   // there was no console to listen to
}

// traces splits what was seen since a moment into boots, oldest first. There is always one, perhaps an empty one.
func traces(events []inventory.Event, from time.Time) []trace {
	all := []trace{{}}
	for i := range events {
		e := &events[i]
		if e.At.Before(from) {
			continue
		}
		t := &all[len(all)-1]
		if t.begins(e) {
			all = append(all, trace{})
			t = &all[len(all)-1]
		}
		t.add(e)
	}
	return all
}

// begins says that e is the first sign of another boot than t.
func (t *trace) begins(e *inventory.Event) bool {
	if e.Kind != "dhcp" || e.Data["type"] != "DISCOVER" {
		return false
	}
	switch e.Data["class"] {
	case "bios-pxe", "uefi-pxe", "uefi-http":
		return t.tftp != nil || t.program != nil || t.ipxe != nil || t.script != nil || t.agent != nil
	case "ipxe", "own-ipxe": // also the second DHCP of a boot that began with firmware
		return t.script != nil || t.agent != nil
	}
	return false
}

func (t *trace) add(e *inventory.Event) {
	switch e.Kind {
	case "dhcp":
		t.addDHCP(e)
		return
	case "tftp":
		t.tftp = e
		if e.Data["result"] == "sent" && !strings.HasSuffix(e.Data["file"], ".ipxe") {
			t.program = e
		}
	case "http":
		t.addHTTP(e)
	case "agent":
		t.agent, t.refused = e, nil
		if strings.Contains(e.Text, "refused") {
			t.agent, t.refused = nil, e
		}
	case "console":
		switch {
		case e.Data["complaint"] != "":
			t.said = append(t.said, e)
		case e.Data["none"] != "":
			t.deaf = e
		}
		return // not a sign on the wire
	default:
		return
	}
	t.last = e.At
}

func (t *trace) addDHCP(e *inventory.Event) {
	d := e.Data
	if d["server"] != "" {
		if d["boot"] != "" {
			t.rival = e
		} else {
			t.lease = e
		}
		return
	}
	if d["class"] == "other" && d["unserved"] == "" && t.script == nil {
		return // an operating system's
	}
	if d["unconfigured"] != "" {
		t.foreign = e
		return
	}
	t.last = e.At
	ipxe := strings.HasSuffix(d["class"], "ipxe")
	if d["type"] == "REQUEST" && d["port"] == "67" {
		t.took = e
	}
	switch {
	case d["unserved"] != "":
		t.unheard = e
	case d["class"] == "other":
		t.system = e
	case ipxe && t.program != nil:
		t.ipxe = e
	case d["answer"] == "" && t.took == e:
		// its DHCP server's to answer
	case d["answer"] == "":
		t.unheard = e
	case d["port"] == "4011" || d["class"] == "uefi-http" || ipxe:
		t.told, t.unheard = e, nil
	default:
		t.offered, t.unheard = e, nil
	}
}

func (t *trace) addHTTP(e *inventory.Event) {
	path := e.Data["path"]
	switch {
	case e.Data["action"] != "":
		t.script, t.kernel, t.initrd, t.cut, t.system = e, nil, nil, nil, nil
		// What was said before has not kept it from coming here, unless it is why the boot program asks again.
		t.said = slices.DeleteFunc(t.said, func(e *inventory.Event) bool { return e.Data["complaint"] != string(aboutIPXE) })
	case e.Data["cut"] != "":
		t.cut = e
	case e.Data["status"] != "200" && e.Data["status"] != "206":
	case strings.HasSuffix(path, "/vmlinuz"):
		t.kernel, t.cut = e, nil
	case strings.HasSuffix(path, "/initrd"):
		t.initrd, t.cut = e, nil
	case strings.HasSuffix(path, ".efi"):
		t.program = e
	}
}

// empty says that the machine itself gave no sign that reached us where we serve.
func (t *trace) empty() bool { return t.last.IsZero() }
