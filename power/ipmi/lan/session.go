package lan

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"
)

// session is what the packets of the BMC are checked with.
type session struct {
	id        uint32
	integrity types.IntegrityAlg
	k1, k2    []byte
	window    window
}

func (l *login) session() *session {
	return &session{id: l.consoleID, integrity: l.integrity, k1: l.k1, k2: l.k2}
}

const (
	trailerSize = 2 // pad length and next header, before the AuthCode
	ivSize      = aes.BlockSize

	ipmiSize = 8 // of an answer without data: addresses, checksums, command, completion code
	solSize  = 4 // of a SOL packet without characters, section 15.9
)

// genuine says whether a packet is the BMC's, of this session, new, and one that the library can read.
func (s *session) genuine(d []byte) bool {
	authSize, known := crypto.IntegrityAuthCodeLen(s.integrity)
	if !known || authSize == 0 || len(d) < headerSize+trailerSize+authSize || d[0] != formatRMCPP ||
		d[1]&flags != flags {
		return false
	}
	if binary.LittleEndian.Uint32(d[2:]) != s.id {
		return false
	}
	signed, code := d[:len(d)-authSize], d[len(d)-authSize:]
	want, err := crypto.SessionIntegrityAuthCode(s.integrity, signed, s.k1, "")
	if err != nil || !hmac.Equal(want, code) {
		return false
	}
	// The BMC signed this packet. But an attacker may control the BMC, so its lengths are checked, too.
	if !s.window.fresh(binary.LittleEndian.Uint32(d[6:])) {
		return false
	}
	n, pad := int(binary.LittleEndian.Uint16(d[10:])), int(signed[len(signed)-trailerSize])
	if headerSize+n+pad+trailerSize != len(signed) {
		return false
	}
	text := d[headerSize : headerSize+n]
	if len(text) < ivSize+aes.BlockSize || len(text)%aes.BlockSize != 0 {
		return false
	}
	plain, err := crypto.DecryptAESPayload(text, s.k2)
	if err != nil {
		return false
	}
	switch types.PayloadType(d[1] &^ flags) {
	case types.PayloadTypeIPMI:
		return len(plain) >= ipmiSize
	case types.PayloadTypeSOL:
		return len(plain) >= solSize
	}
	return false
}

// encryptAnew gives a packet of the library a random initialization vector, as section 13.29 wants. The
// library takes it from the time of day in seconds, so that all packets of one second have the same.
func (s *session) encryptAnew(d []byte) error {
	authSize, _ := crypto.IntegrityAuthCodeLen(s.integrity)
	n := int(binary.LittleEndian.Uint16(d[10:]))
	if authSize == 0 || d[0] != formatRMCPP || d[1]&flags != flags || n < ivSize+aes.BlockSize ||
		n%aes.BlockSize != 0 || headerSize+n+trailerSize+authSize > len(d) {
		return errors.New("send to the BMC: a packet of a session that is not encrypted")
	}
	block, err := aes.NewCipher(s.k2[:16])
	if err != nil {
		return err
	}
	iv, text := d[headerSize:headerSize+ivSize], d[headerSize+ivSize:headerSize+n]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	_, _ = rand.Read(iv) // never fails
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	signed := d[:len(d)-authSize]
	code, err := crypto.SessionIntegrityAuthCode(s.integrity, signed, s.k1, "")
	if err != nil || len(code) != authSize {
		return fmt.Errorf("send to the BMC: sign a packet: %w", err)
	}
	copy(d[len(signed):], code)
	return nil
}

// windowSize is how many sequence numbers the window covers. A packet that is further behind the newest one
// is dropped.
const windowSize = 64

// window records which sequence numbers have come (section 6.12.13). The specification's window reaches from
// 16 before the newest to 15 after it, which guards a receiver that does not check AuthCodes first. Ours
// accepts a new number after any number of lost packets, because the AuthCode was checked before, as IPsec
// does (RFC 4303 section 3.4.3).
type window struct {
	newest uint32
	came   uint64 // bit n is set when newest - n has come
}

// fresh says whether a sequence number has not come before, and records it. Numbers begin with 1; a session
// ends long before they wrap.
func (w *window) fresh(n uint32) bool {
	switch {
	case n == 0:
		return false
	case n > w.newest:
		w.came = w.came<<min(n-w.newest, windowSize) | 1
		w.newest = n
		return true
	case w.newest-n >= windowSize || w.came&(1<<(w.newest-n)) != 0:
		return false
	}
	w.came |= 1 << (w.newest - n)
	return true
}
