package deploy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// A nonce is the secret of one network boot of one machine. It is signed and not stored: the script handler issues
// it without touching the store, and one that was issued just before a crash still counts after it.
//
// Nonces are ordered by number and aged by the time that the appliance has run. The time of day decides nothing: a clock that was
// ahead and is corrected would let them outlive a power-off, or refuse fresh ones.
//
// Layout before base64url: 4 bytes of the appliance's start, 6 bytes that count nonces since then, 6 bytes of milliseconds since
// then, 6 bytes of MAC, then the first 16 bytes of HMAC-SHA-256 over the word "boot", them, and the salt of that start.
const (
	nonceBody = 4 + 6 + 6 + 6
	nonceTag  = 16
)

// A Nonce is one that was verified.
type Nonce struct {
	Serial inventory.Serial
	MAC    inventory.MAC
	// Age of a nonce of an earlier start is the time since this one: when the process was down is not known. So one that was
	// issued before a crash has its full time to be shown after it.
	Age time.Duration
}

var errNonce = errors.New("the nonce is not one of this appliance's")

// nonces issues and verifies them.
type nonces struct {
	key     Key
	salts   map[uint32][]byte // of the starts that are remembered
	start   uint32            // this one
	elapsed func() time.Duration
	count   atomic.Uint64
}

func newNonces(key Key, starts []boltdb.Start, elapsed func() time.Duration) *nonces {
	n := &nonces{key: key, salts: map[uint32][]byte{}, elapsed: elapsed}
	for _, s := range starts {
		n.salts[s.Number], n.start = s.Salt, s.Number
	}
	return n
}

// issue makes a fresh nonce for a machine's next boot.
func (n *nonces) issue(mac inventory.MAC) string {
	hw, err := net.ParseMAC(string(mac))
	if err != nil || len(hw) != 6 {
		panic("nonce for a MAC that was not parsed: " + string(mac))
	}
	body := make([]byte, 0, nonceBody+nonceTag)
	body = binary.BigEndian.AppendUint32(body, n.start)
	body = append(body, six(n.count.Add(1))...)
	body = append(body, six(uint64(n.elapsed().Milliseconds()))...)
	body = append(body, hw...)
	return base64.RawURLEncoding.EncodeToString(append(body, n.tag(n.start, body)...))
}

// issued is the last one that was issued.
func (n *nonces) issued() inventory.Serial {
	return inventory.Serial{Start: n.start, Count: n.count.Load()}
}

// verify tells a nonce of ours from anything else.
func (n *nonces) verify(token string) (Nonce, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != nonceBody+nonceTag {
		return Nonce{}, errNonce
	}
	body, tag := raw[:nonceBody], raw[nonceBody:]
	start := binary.BigEndian.Uint32(body)
	if n.salts[start] == nil || !hmac.Equal(tag, n.tag(start, body)) {
		return Nonce{}, errNonce
	}
	age := n.elapsed()
	if start == n.start {
		age -= time.Duration(number(body[10:16])) * time.Millisecond
	}
	return Nonce{
		Serial: inventory.Serial{Start: start, Count: number(body[4:10])},
		MAC:    inventory.MAC(net.HardwareAddr(body[16:]).String()),
		Age:    age,
	}, nil
}

func (n *nonces) tag(start uint32, body []byte) []byte {
	return n.key.tag("boot", append(append([]byte{}, body...), n.salts[start]...))
}

// six and number are the big-endian form of 48 bits.
func six(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v)[2:] }

func number(b []byte) uint64 { return binary.BigEndian.Uint64(append([]byte{0, 0}, b...)) }

// Key signs nonces and phone-home tokens. It is made once and kept beside the store.
type Key []byte

// PhoneHomeToken is the nonce of a deployment: only the deployed system is told it, and whoever shows it
// proves that the system runs.
func (k Key) PhoneHomeToken(id inventory.DeploymentID) string {
	return base64.RawURLEncoding.EncodeToString(k.tag("phone-home", []byte(id)))
}

// IsPhoneHome compares in constant time.
func (k Key) IsPhoneHome(id inventory.DeploymentID, token string) bool {
	return hmac.Equal([]byte(token), []byte(k.PhoneHomeToken(id)))
}

func (k Key) tag(use string, body []byte) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(use))
	mac.Write([]byte{0})
	mac.Write(body)
	return mac.Sum(nil)[:nonceTag]
}
