package diagnose

import (
	"strconv"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

// withComplaints adds the console's complaints to the place where a boot stopped.
func (b boot) withComplaints(t *trace, br breakdown) breakdown {
	decisive, cause := t.complaints()
	if decisive == nil {
		return br
	}
	said := complaintOf(decisive)
	// Firmware and boot programs go on after most complaints. A kernel that panicked does not, and a
	// complaint that is repeated shows that the boot does not go on.
	if br.underWay && said.About != aboutPanic && decisive.Count < 2 {
		return br
	}
	switch {
	case said.About == aboutPanic && t.initrd != nil:
		_, why, _ := strings.Cut(said.Quote, "not syncing: ")
		br.stage = "it has kernel and ramdisk, and its agent never called: the kernel panicked (" + why + ")"
	case t.initrd != nil && t.system == nil:
		br.stage = "it has kernel and ramdisk, and its agent never called; its console says " +
			strconv.Quote(said.Quote)
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

// complaints returns the last of a boot's gravest complaints, and its cause, which decides what to do: before
// a kernel panics without a root filesystem, it has often said why it has none.
func (t *trace) complaints() (decisive *inventory.Event, cause Complaint) {
	for _, e := range t.complained {
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
	for _, e := range t.complained {
		switch c := complaintOf(e); c.About {
		case aboutMemory, aboutRamdisk, aboutHardware:
			if cause.About == aboutPanic || c.About == aboutMemory {
				cause = c
			}
		}
	}
	return decisive, cause
}

// gravity is the place of a complaint in the table: 0 is the gravest.
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
