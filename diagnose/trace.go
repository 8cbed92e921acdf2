package diagnose

import (
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// A trace is the last event of each kind in one network boot. Only the kinds of events and their data count,
// never their text.
type trace struct {
	last time.Time // of the client's own events

	elsewhere  *inventory.Event // a request on an interface that we do not serve
	unanswered *inventory.Event // a request that we did not answer, or answered without a boot program
	offered    *inventory.Event // our offer to firmware
	bootReply  *inventory.Event // our answer on port 4011, or to an HTTP boot client
	request    *inventory.Event // its request to a server for an address
	otherLease *inventory.Event // another server's answer without a boot file
	otherBoot  *inventory.Event // another server's answer with a boot file
	tftp       *inventory.Event
	program    *inventory.Event // a boot program that arrived whole
	ipxe       *inventory.Event // the boot program's own DHCP
	script     *inventory.Event
	kernel     *inventory.Event
	initrd     *inventory.Event
	cutOff     *inventory.Event // a download that was cut off
	system     *inventory.Event // DHCP of what was booted
	agent      *inventory.Event
	refused    *inventory.Event
	complained []*inventory.Event // on its console
	noConsole  *inventory.Event   // there was no console to listen to
}

// traces splits the events since a moment into boots, oldest first. It returns at least one, which may be
// empty.
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

// begins says whether e is the first event of another boot than t.
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
			t.complained = append(t.complained, e)
		case e.Data[inventory.DataAbsent] != "":
			t.noConsole = e
		}
		return // not seen on the wire
	default:
		return
	}
	t.last = e.At
}

func (t *trace) addDHCP(e *inventory.Event) {
	d, class := e.Data, dhcpd.Class(e.Data[inventory.DataClass])
	if d[inventory.DataServer] != "" {
		if d[inventory.DataBoot] != "" {
			t.otherBoot = e
		} else {
			t.otherLease = e
		}
		return
	}
	if class == dhcpd.ClassOther && d[inventory.DataUnserved] == "" && t.script == nil {
		return // an operating system's
	}
	if d[inventory.DataUnconfigured] != "" {
		t.elsewhere = e
		return
	}
	t.last = e.At
	ipxe := class == dhcpd.ClassIPXE || class == dhcpd.ClassOwnIPXE
	if d[inventory.DataType] == "REQUEST" && d[inventory.DataPort] == "67" {
		t.request = e
	}
	switch {
	case d[inventory.DataUnserved] != "":
		t.unanswered = e
	case class == dhcpd.ClassOther:
		t.system = e
	case ipxe && t.program != nil:
		t.ipxe = e
	case d[inventory.DataAnswer] == "" && t.request == e:
		// its DHCP server answers this one
	case d[inventory.DataAnswer] == "":
		t.unanswered = e
	case d[inventory.DataPort] == "4011" || class == dhcpd.ClassHTTP || ipxe:
		t.bootReply, t.unanswered = e, nil
	default:
		t.offered, t.unanswered = e, nil
	}
}

func (t *trace) addHTTP(e *inventory.Event) {
	path := e.Data[inventory.DataPath]
	switch {
	case e.Data[inventory.DataAction] != "":
		t.script, t.kernel, t.initrd, t.cutOff, t.system = e, nil, nil, nil, nil
		// Earlier complaints did not stop this boot. Only the boot program's own can be why it asks again.
		t.complained = slices.DeleteFunc(t.complained, func(e *inventory.Event) bool {
			return e.Data[inventory.DataComplaint] != string(aboutIPXE)
		})
	case e.Data[inventory.DataCut] != "":
		t.cutOff = e
	case e.Data[inventory.DataStatus] != "200" && e.Data[inventory.DataStatus] != "206":
	case strings.HasSuffix(path, "/vmlinuz"):
		t.kernel, t.cutOff = e, nil
	case strings.HasSuffix(path, "/initrd"):
		t.initrd, t.cutOff = e, nil
	case strings.HasSuffix(path, ".efi"):
		t.program = e
	}
}

// empty says whether nothing that the machine sent has reached an interface that we serve.
func (t *trace) empty() bool { return t.last.IsZero() }

// result is how a TFTP transfer ended.
func result(e *inventory.Event) inventory.TFTPResult {
	return inventory.TFTPResult(e.Data[inventory.DataResult])
}
