package dhcpd

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Seen is one packet that arrived, and our answer. Ordinary DHCP clients are reported, too: their packets
// show that an operating system runs.
type Seen struct {
	Time time.Time
	Client
	Answer dhcpv4.MessageType // what was sent: OFFER or ACK; 0 when nothing was
	Boot   string             // the boot file or URL in the answer
	Lease  netip.Addr         // the address in the answer; none in proxy mode
	Reason Reason             // why nothing was sent, or a NAK; or what is special about the answer
}

// String is one line: what the client asked, and our answer or the reason for none.
func (s Seen) String() string {
	kind := string(s.Class)
	switch {
	case s.Class == ClassOther && s.Vendor != "":
		kind += " " + strconv.Quote(s.Vendor)
	case s.HasArch && s.Class != ClassOther:
		kind += " (" + s.Arch.String() + ")"
	}
	if s.Odd != "" {
		kind += ", malformed (" + s.Odd + "),"
	}
	return s.Type.String() + " from " + kind + " on port " + strconv.Itoa(s.Port) + ": " + s.answered()
}

func (s Seen) answered() string {
	if s.Answer == 0 {
		return "no answer: " + s.Reason.String()
	}
	what := s.Answer.String()
	if s.Lease.IsValid() {
		what += " " + s.Lease.String()
	}
	if boot, _, _ := strings.Cut(s.Boot, "?"); boot != "" { // the query of a URL has iPXE's settings
		what += " " + boot
	}
	if s.Reason.Code != "" {
		what += ": " + s.Reason.String()
	}
	return what
}
