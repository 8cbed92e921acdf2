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

// session is what a packet of the BMC is held against.
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
	// The BMC wrote this. It may still be another's than it was, so its lengths are no better than a
	// stranger's.
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

// encryptAnew gives a packet of the library's an initialization vector that nobody can foresee (section 13.29
// wants a random one): the library takes it from the time of day in seconds, so that all packets of a second
// have the same.
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

// windowSize is how far behind the newest packet one may come that was not there yet.
const windowSize = 64

// window knows which sequence numbers came (section 6.12.13). The specification's reaches from 16 before the
// newest to 15 after it, which guards a receiver that does not check AuthCodes first. Ours has any number of
// lost packets before a new one, because what it is asked about is genuine, as that of IPsec
// (RFC 4303 section 3.4.3).
type window struct {
	newest uint32
	came   uint64 // bit n: newest - n
}

// fresh says whether a number was not there yet, and notes it. Numbers begin with 1; a session ends long
// before they wrap.
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
