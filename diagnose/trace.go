package diagnose

import (
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// A trace is how far one network boot came: the last event of each kind of sign. What counts is the kind of
// an event and its data, never its text.
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

// traces splits what was seen since a moment into boots, oldest first. There is always one, perhaps an empty
// one.
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
	if e.Kind != inventory.KindDHCP || e.Data[inventory.DataType] != "DISCOVER" {
		return false
	}
	switch dhcpd.Class(e.Data[inventory.DataClass]) {
	case dhcpd.ClassBIOS, dhcpd.ClassUEFI, dhcpd.ClassHTTP:
		return t.tftp != nil || t.program != nil || t.ipxe != nil || t.script != nil || t.agent != nil
	case dhcpd.ClassIPXE, dhcpd.ClassOwnIPXE: // also the second DHCP of a boot that began with firmware
		return t.script != nil || t.agent != nil
	}
	return false
}

func (t *trace) add(e *inventory.Event) {
	switch e.Kind {
	case inventory.KindDHCP:
		t.addDHCP(e)
		return
	case inventory.KindTFTP:
		t.tftp = e
		if result(e) == inventory.TFTPSent && !strings.HasSuffix(e.Data[inventory.DataFile], ".ipxe") {
			t.program = e
		}
	case inventory.KindHTTP:
		t.addHTTP(e)
	case inventory.KindAgent:
		t.agent, t.refused = e, nil
		if e.Data[inventory.DataRefused] != "" {
			t.agent, t.refused = nil, e
		}
	case inventory.KindConsole:
		switch {
		case e.Data[inventory.DataComplaint] != "":
			t.said = append(t.said, e)
		case e.Data[inventory.DataAbsent] != "":
			t.deaf = e
		}
		return // not a sign on the wire
	default:
		return
	}
	t.last = e.At
}

func (t *trace) addDHCP(e *inventory.Event) {
	d, class := e.Data, dhcpd.Class(e.Data[inventory.DataClass])
	if d[inventory.DataServer] != "" {
		if d[inventory.DataBoot] != "" {
			t.rival = e
		} else {
			t.lease = e
		}
		return
	}
	if class == dhcpd.ClassOther && d[inventory.DataUnserved] == "" && t.script == nil {
		return // an operating system's
	}
	if d[inventory.DataUnconfigured] != "" {
		t.foreign = e
		return
	}
	t.last = e.At
	ipxe := class == dhcpd.ClassIPXE || class == dhcpd.ClassOwnIPXE
	if d[inventory.DataType] == "REQUEST" && d[inventory.DataPort] == "67" {
		t.took = e
	}
	switch {
	case d[inventory.DataUnserved] != "":
		t.unheard = e
	case class == dhcpd.ClassOther:
		t.system = e
	case ipxe && t.program != nil:
		t.ipxe = e
	case d[inventory.DataAnswer] == "" && t.took == e:
		// its DHCP server's to answer
	case d[inventory.DataAnswer] == "":
		t.unheard = e
	case d[inventory.DataPort] == "4011" || class == dhcpd.ClassHTTP || ipxe:
		t.told, t.unheard = e, nil
	default:
		t.offered, t.unheard = e, nil
	}
}

func (t *trace) addHTTP(e *inventory.Event) {
	path := e.Data[inventory.DataPath]
	switch {
	case e.Data[inventory.DataAction] != "":
		t.script, t.kernel, t.initrd, t.cut, t.system = e, nil, nil, nil, nil
		// What was said before has not kept it from coming here, unless it is why the boot program asks
		// again.
		t.said = slices.DeleteFunc(t.said, func(e *inventory.Event) bool { return e.Data[inventory.DataComplaint] != string(aboutIPXE) })
	case e.Data[inventory.DataCut] != "":
		t.cut = e
	case e.Data[inventory.DataStatus] != "200" && e.Data[inventory.DataStatus] != "206":
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

// result is how a TFTP transfer ended.
func result(e *inventory.Event) inventory.TFTPResult {
	return inventory.TFTPResult(e.Data[inventory.DataResult])
}
