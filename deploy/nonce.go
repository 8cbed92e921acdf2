package deploy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A nonce is the secret of one network boot of one machine. It is signed and not stored: the script handler issues
// it without touching the store, and one that was issued just before a crash still counts after it.
//
// Layout before base64url: 9 random bytes, 6 bytes of Unix milliseconds, 6 bytes of MAC, then the first
// 16 bytes of HMAC-SHA-256 over them and the word "boot". The random bytes are its public id.
const (
	nonceRandom = 9
	nonceBody   = nonceRandom + 6 + 6
	nonceTag    = 16
)

// A Nonce is one that was verified.
type Nonce struct {
	ID       string
	MAC      inventory.MAC
	IssuedAt time.Time
}

var errNonce = errors.New("the nonce is not one of this appliance's")

// Key signs nonces and phone-home tokens. It is made once and kept beside the store.
type Key []byte

// IssueNonce makes a fresh nonce for a machine's next boot.
func (k Key) IssueNonce(mac inventory.MAC, now time.Time) string {
	body := make([]byte, nonceRandom, nonceBody+nonceTag)
	rand.Read(body) // never fails: crypto/rand ends the process instead
	body = append(body, binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))[2:]...)
	hw, err := net.ParseMAC(string(mac))
	if err != nil || len(hw) != 6 {
		panic("nonce for a MAC that was not parsed: " + string(mac))
	}
	body = append(body, hw...)
	return base64.RawURLEncoding.EncodeToString(append(body, k.tag("boot", body)...))
}

// VerifyNonce tells a nonce of ours from anything else.
func (k Key) VerifyNonce(token string) (Nonce, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != nonceBody+nonceTag {
		return Nonce{}, errNonce
	}
	body, tag := raw[:nonceBody], raw[nonceBody:]
	if !hmac.Equal(tag, k.tag("boot", body)) {
		return Nonce{}, errNonce
	}
	ms := binary.BigEndian.Uint64(append([]byte{0, 0}, body[nonceRandom:nonceRandom+6]...))
	return Nonce{
		ID:       hex.EncodeToString(body[:nonceRandom]),
		MAC:      inventory.MAC(net.HardwareAddr(body[nonceRandom+6:]).String()),
		IssuedAt: time.UnixMilli(int64(ms)).UTC(),
	}, nil
}

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
