package nonce

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Layout of a nonce before base64url: 4 bytes of the appliance's start, 6 bytes that count nonces since then,
// 6 bytes of milliseconds since then, 6 bytes of MAC, then the first 16 bytes of HMAC-SHA-256 over the word
// "boot", a zero byte, those 22 bytes, and the salt of that start.
const (
	bodySize = 4 + 6 + 6 + 6
	tagSize  = 16
)

// A Nonce is what a verified nonce says.
type Nonce struct {
	Serial inventory.Serial
	MAC    inventory.MAC
	// Age is the time since the nonce was issued. For a nonce of an earlier start it is the time since this
	// start, since nobody knows how long the process was down. So a nonce that was issued before a crash can
	// be shown for its full time after it.
	Age time.Duration
}

var errForeign = errors.New("the nonce is not one of this appliance's")

// An Issuer issues nonces and verifies them. Its methods are for any goroutine.
type Issuer struct {
	key     Key
	salts   map[uint32][]byte // of the starts that are remembered
	start   uint32            // this one
	elapsed func() time.Duration
	count   atomic.Uint64
}

// NewIssuer returns the Issuer of the last of these starts. It verifies the nonces of all of them. elapsed is
// the time since this start, by a clock that nobody sets.
func NewIssuer(key Key, starts []boltdb.Start, elapsed func() time.Duration) *Issuer {
	n := &Issuer{key: key, salts: map[uint32][]byte{}, elapsed: elapsed}
	for _, s := range starts {
		n.salts[s.Number], n.start = s.Salt, s.Number
	}
	return n
}

// Issue makes a fresh nonce for a machine's next boot.
func (n *Issuer) Issue(mac inventory.MAC) string {
	hw, err := net.ParseMAC(string(mac))
	if err != nil || len(hw) != 6 {
		panic("nonce for a MAC that was not parsed: " + string(mac))
	}
	body := make([]byte, 0, bodySize+tagSize)
	body = binary.BigEndian.AppendUint32(body, n.start)
	body = append(body, bytes6(n.count.Add(1))...)
	body = append(body, bytes6(uint64(n.elapsed().Milliseconds()))...)
	body = append(body, hw...)
	return base64.RawURLEncoding.EncodeToString(append(body, n.tag(n.start, body)...))
}

// Issued returns the serial of the last nonce that was issued.
func (n *Issuer) Issued() inventory.Serial {
	return inventory.Serial{Start: n.start, Count: n.count.Load()}
}

// Verify returns what a nonce of this appliance says, and an error for anything else. It does not check the
// age.
func (n *Issuer) Verify(token string) (Nonce, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != bodySize+tagSize {
		return Nonce{}, errForeign
	}
	body, tag := raw[:bodySize], raw[bodySize:]
	start := binary.BigEndian.Uint32(body)
	if n.salts[start] == nil || !hmac.Equal(tag, n.tag(start, body)) {
		return Nonce{}, errForeign
	}
	age := n.elapsed()
	if start == n.start {
		age -= time.Duration(uint48(body[10:16])) * time.Millisecond
	}
	return Nonce{
		Serial: inventory.Serial{Start: start, Count: uint48(body[4:10])},
		MAC:    inventory.MAC(net.HardwareAddr(body[16:]).String()),
		Age:    age,
	}, nil
}

func (n *Issuer) tag(start uint32, body []byte) []byte {
	return n.key.tag("boot", append(append([]byte{}, body...), n.salts[start]...))
}

// bytes6 and uint48 convert to and from 48 bits, big-endian.
func bytes6(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v)[2:] }

func uint48(b []byte) uint64 { return binary.BigEndian.Uint64(append([]byte{0, 0}, b...)) }
