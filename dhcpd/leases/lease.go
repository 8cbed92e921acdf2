package leases

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// State is the state of an address. The numbers are on the disk.
type State uint8

// The states of an address.
const (
	Free     State = 1 // expired or given back; remembered, so that its client gets it again
	Offered  State = 2 // held for a minute; never on the disk
	Bound    State = 3
	Declined State = 4 // the client that got it says that somebody else uses it
)

func (s State) String() string {
	switch s {
	case Free:
		return "free"
	case Offered:
		return "offered"
	case Bound:
		return "bound"
	case Declined:
		return "declined"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// A Lease is one address and its client.
type Lease struct {
	Addr        netip.Addr
	Client      string           // the client's identity: bytes that only dhcpd understands
	MAC         net.HardwareAddr // of the client's last packet
	Host        string           // what the client calls itself
	Reservation string           // the reservation that it came by, "" for none
	State       State
	Known       bool // held by a machine that is known; the others share a part of the pool
	Alias       bool // see Claim.Alias
	Expires     time.Time
	// Doubtful: a client declined the address a while ago, and nothing else was free. Only in offers.
	Doubtful bool
}

// A Claim is a client that asks for an address.
type Claim struct {
	Subnet int // index into the table's subnets
	Client string
	MAC    net.HardwareAddr
	Host   string
	Known  bool
	// KnownBy is what a known client is recognised by. Its first three leases count as a known machine's,
	// more do not.
	KnownBy string
	// Alias: the client's identity is not its MAC. Only two of the three leases can be an alias's; one is
	// kept for the client whose identity is the MAC.
	Alias       bool
	Reserved    netip.Addr // the address that is reserved for it, if any
	Reservation string     // what tells its reservation from others
	Renews      bool       // it already uses the address that it asks for
	Want        netip.Addr // what it would like to have, or asks for
}

// Why a Table refuses a change.
var (
	ErrExhausted = errors.New("no free address in the pool")
	ErrShare     = errors.New("unknown machines hold as many addresses as they may")
	ErrTaken     = errors.New("the address is another client's")
	ErrNotGiven  = errors.New("the client was not given that address a moment ago")
	ErrElsewhere = errors.New("the client's address is another one")
	ErrBusy      = errors.New("the disk does not keep up")
	ErrClosed    = errors.New("the lease file is closed")
	ErrWrite     = errors.New("the lease file cannot be written")
)

// A Range is the addresses from First to Last, written as "10.0.0.10-10.0.0.99".
type Range struct{ First, Last netip.Addr }

func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// Contains says whether the address lies within.
func (r Range) Contains(a netip.Addr) bool { return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 }

// Overlaps says whether the two have an address in common.
func (r Range) Overlaps(o Range) bool {
	return r.First.Compare(o.Last) <= 0 && o.First.Compare(r.Last) <= 0
}

// Size is the number of addresses in the range.
func (r Range) Size() int { return int(number(r.Last)-number(r.First)) + 1 }

// UnmarshalText reads the written form. A single address is a range of one.
func (r *Range) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		last = first
	}
	var err error
	if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
		r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
	}
	if err == nil && (!r.First.Is4() || !r.Last.Is4() || r.Last.Less(r.First)) {
		err = fmt.Errorf("range %q: want two IPv4 addresses, the lower one first", text)
	}
	return err
}

// MarshalText writes the written form.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A Subnet is what the table must know of one network.
type Subnet struct {
	Prefix netip.Prefix
	Pools  []Range
	Except []netip.Addr // in a pool, but not for everybody: routers, our own and reserved addresses
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
