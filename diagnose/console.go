package diagnose

import (
	"strconv"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// complained adds to where a boot stopped what its console says of it.
func (b boot) complained(t *trace, br breakdown) breakdown {
	decisive, cause := t.complaints()
	if decisive == nil {
		return br
	}
	said := complaintOf(decisive)
	// Firmware and boot programs complain of much that they then get over. A kernel that panics has ended,
	// and who says the same again has not got over it.
	if br.underWay && said.About != aboutPanic && decisive.Count < 2 {
		return br
	}
	switch {
	case said.About == aboutPanic && t.initrd != nil:
		_, why, _ := strings.Cut(said.Quote, "not syncing: ")
		br.stage = "it has kernel and ramdisk, and its agent never called: the kernel panicked (" + why + ")"
	case t.initrd != nil && t.system == nil:
		br.stage = "it has kernel and ramdisk, and its agent never called; its console says " + strconv.Quote(said.Quote)
	default:
		br.stage += "; its console says " + strconv.Quote(said.Quote)
	}
	if cause != said {
		br.stage += " after " + strconv.Quote(cause.Quote)
	}
	if next := cause.next(); next != "" {
		br.next = next
	} else if br.underWay {
		br.next = b.console()
	}
	br.decisive, br.underWay = decisive, false
	return br
}

// complaints are the event that stands for a boot, the last of the gravest, and what tells what to do: a
// kernel that panics for want of a root has often said before why it has none.
func (t *trace) complaints() (decisive *inventory.Event, cause Complaint) {
	for _, e := range t.said {
		if decisive == nil || gravity(e) <= gravity(decisive) {
			decisive = e
		}
	}
	if decisive == nil {
		return nil, cause
	}
	cause = complaintOf(decisive)
	if cause.About != aboutPanic {
		return decisive, cause
	}
	for _, e := range t.said {
		switch c := complaintOf(e); c.About {
		case aboutMemory, aboutRamdisk, aboutHardware:
			if cause.About == aboutPanic || c.About == aboutMemory {
				cause = c
			}
		}
	}
	return decisive, cause
}

// gravity is 0 for the gravest.
func gravity(e *inventory.Event) int {
	about := complaintOf(e).About
	for i := range complaints {
		if complaints[i].about == about {
			return i
		}
	}
	return len(complaints)
}

func complaintOf(e *inventory.Event) Complaint {
	return Complaint{Subject(e.Data[inventory.DataComplaint]), e.Data[inventory.DataQuote]}
}
