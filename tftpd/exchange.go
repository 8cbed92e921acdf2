package tftpd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/pin/tftp/v3/netascii"
)

// A request costs no transfer, no goroutine and no socket until its client has acknowledged the first answer
// to it, and so proved that it is where it says: anybody can send requests from addresses of others. Until
// then it is an entry in a table. When the table is full the oldest entry goes; firmware that is there
// acknowledges within milliseconds.
const (
	maxUnproven = 8192
	// A first answer that nobody acknowledges is sent again twice, and not at all during a flood: firmware
	// asks again by itself.
	unprovenRetries = 2

	// When all transfers are in use, one whose client has been silent for this long makes room for a new one.
	silentFor = 250 * time.Millisecond
	// How long a client that has proved itself waits for room.
	slotWait = 500 * time.Millisecond
)

// An exchange is one read request and its transfer.
type exchange struct {
	Transfer
	wish
	id     uint64
	port   *port // where it is answered from
	data   []byte
	begun  time.Time
	said   string // the request as it came, to recognise it when it is repeated
	client string // under which its stalls are remembered

	// last is the last packet that was sent to the client; awaits is the block that the client must
	// acknowledge then.
	last   []byte
	awaits uint16
	sent   time.Time
	tries  int

	proved time.Time // when its client proved itself; zero: it has not
	try    *attempt  // nil: it does not run
	heard  time.Time // when its client acknowledged something last
	// The library has just got the request, and its first packet repeats what the client has already got: do
	// not send that packet.
	echo    bool
	waiting bool  // the library has sent something and waits for an answer
	ending  error // why it ends early; the library is told when it waits for an answer
	settled bool  // it is over, and has been reported
}

// from is the client's address as the library knows it.
func (e *exchange) from() *net.UDPAddr {
	return &net.UDPAddr{
		IP: e.Client.Addr().AsSlice(), Port: int(e.Client.Port()), Zone: strconv.FormatUint(e.id, 10),
	}
}

// whole says whether the client has acknowledged the last block.
func (e *exchange) whole() bool {
	return e.try != nil && !e.waiting && !e.echo && e.ending == nil && len(e.last) >= 4 &&
		e.last[1] == opData && len(e.last) < 4+e.BlockSize
}

// request is the request as the library gets it: with the negotiated block size, and no other option.
func (e *exchange) request() []byte {
	mode := "octet"
	if e.netascii {
		mode = "netascii"
	}
	b := append([]byte{0, opRead}, "file\x00"+mode+"\x00"...)
	if _, asked := e.blockSize(e.BlockSize); asked {
		b = append(b, "blksize\x00"+strconv.Itoa(e.BlockSize)+"\x00"...)
	}
	return b
}

// begin returns the first answer: an OACK, or the first block when the client asks for no option that we
// have.
func (e *exchange) begin() []byte {
	if told := e.accepted(e.BlockSize, len(e.data)); len(told) > 0 {
		e.awaits = 0
		return oack(told)
	}
	e.awaits = 1
	b := append(blockPacket(opData, 1), make([]byte, minBlock)...)
	n, _ := io.ReadFull(e.reader(), b[4:])
	return b[:4+n]
}

func (e *exchange) reader() io.Reader {
	r := io.Reader(bytes.NewReader(e.data))
	if e.netascii {
		r = netascii.ToReader(r)
	}
	return r
}

// silentError says that a client stopped acknowledging. It is a net.Error with Timeout true.
type silentError struct{}

func (silentError) Error() string   { return "the client stopped acknowledging" }
func (silentError) Timeout() bool   { return true }
func (silentError) Temporary() bool { return false }

var (
	errSilent   net.Error = silentError{}
	errTooLong            = errors.New("the transfer took too long")
	errStopping           = errors.New("server is stopping")
	errAgain              = errors.New("the client began anew")
	errMakeRoom net.Error = makeRoomError{}
)

// makeRoomError says that a silent client's transfer ended because another client needed it.
type makeRoomError struct{ silentError }

func (makeRoomError) Error() string { return "the client was silent while others waited" }

// A clientError is an ERROR packet of the client.
type clientError struct{ text string }

func (e *clientError) Error() string { return "the client says: " + e.text }

// clientErrorOf reads an ERROR packet.
func clientErrorOf(b []byte) *clientError {
	text, _, _ := bytes.Cut(b[min(4, len(b)):], []byte{0})
	code := 0
	if len(b) >= 4 {
		code = int(b[2])<<8 | int(b[3])
	}
	return &clientError{"error " + strconv.Itoa(code) + ": " + string(text[:min(len(text), 64)])}
}

// exchanges are all that are under way. The server's lock guards them.
type exchanges struct {
	next     uint64
	byClient map[netip.AddrPort]*exchange
	byID     map[uint64]*exchange // those that run, and those that the library has not ended yet
	running  int
	unproven map[netip.Addr][]*exchange // by address, the oldest first
	order    []*exchange                // the oldest first; some are proved or over by now
	count    int                        // of unproven
	waiting  []*exchange                // proved, and without a transfer
}

func newExchanges() exchanges {
	return exchanges{
		byClient: map[netip.AddrPort]*exchange{},
		byID:     map[uint64]*exchange{},
		unproven: map[netip.Addr][]*exchange{},
	}
}

func (x *exchanges) add(e *exchange) {
	x.next++
	e.id = x.next
	x.byClient[e.Client] = e
	x.unproven[e.Client.Addr()] = append(x.unproven[e.Client.Addr()], e)
	x.order = append(x.order, e)
	x.count++
	if len(x.order) > 2*maxUnproven { // most of them are proved or over
		x.order = slices.DeleteFunc(x.order, func(e *exchange) bool { return !x.isUnproven(e) })
	}
}

// oldest returns the unproven exchange to forget: the oldest of the address when the address has too many,
// else the oldest of all when there are too many; nil when there is room.
func (x *exchanges) oldest(of netip.Addr, most int) *exchange {
	if own := x.unproven[of]; len(own) >= most {
		return own[0]
	}
	if x.count < maxUnproven {
		return nil
	}
	for i, e := range x.order {
		if x.isUnproven(e) {
			x.order = x.order[i:]
			return e
		}
	}
	return nil
}

func (x *exchanges) isUnproven(e *exchange) bool { return !e.settled && e.proved.IsZero() }

// leaveUnproven is called when an exchange has been proved or is over.
func (x *exchanges) leaveUnproven(e *exchange) {
	a := e.Client.Addr()
	left := slices.DeleteFunc(x.unproven[a], func(o *exchange) bool { return o == e })
	if x.unproven[a] = left; len(left) == 0 {
		delete(x.unproven, a)
	}
	x.count--
}

// waitingOf is how many exchanges of an address wait for a transfer.
func (x *exchanges) waitingOf(a netip.Addr) (n int) {
	for _, e := range x.waiting {
		if e.Client.Addr() == a {
			n++
		}
	}
	return n
}

// mostSilent is the running exchange whose client was heard the longest ago.
func (x *exchanges) mostSilent(among func(*exchange) bool) *exchange {
	var most *exchange
	for _, e := range x.byID {
		if e.try != nil && !e.settled && e.ending == nil && among(e) &&
			(most == nil || e.heard.Before(most.heard)) {
			most = e
		}
	}
	return most
}
