package lan

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Errors that end a login. A status that the BMC gave is a *types.RmcpStatusError.
var (
	ErrAlgorithms = errors.New("the BMC wants other algorithms than those it was asked for")
	ErrPassword   = errors.New("the BMC does not know this user and password") // RAKP 2 does not verify
	ErrKey        = errors.New("the BMC does not have the session's key")      // RAKP 4 does not verify
)

// algorithms are what a cipher suite is made of.
type algorithms struct {
	auth      types.AuthAlg
	integrity types.IntegrityAlg
	crypt     types.CryptAlg
}

func (a algorithms) String() string {
	return fmt.Sprintf("%s/%s/%s (%d, %d, %d)", a.auth, a.integrity, a.crypt, a.auth, a.integrity, a.crypt)
}

// safe are the cipher suites that may be asked for: 17 and 3. The others lack integrity or encryption, or no
// BMC has them.
var safe = []algorithms{
	{types.AuthAlg_HMAC_SHA256, types.IntegrityAlg_HMAC_SHA256_128, types.CryptAlg_AES_CBC_128},
	{types.AuthAlg_HMAC_SHA1, types.IntegrityAlg_HMAC_SHA1_96, types.CryptAlg_AES_CBC_128},
}

// RMCP+ packet, section 13.6 (table 13-8).
const (
	authNone    = 0x00 // the format of IPMI 1.5
	formatRMCPP = 0x06
	headerSize  = 12   // format, payload type, session id, sequence number, payload length
	flags       = 0xc0 // of the payload type: encrypted and authenticated
)

// login is the state of a login: what was sent, and what was believed of the answers.
type login struct {
	Secrets
	tag       byte   // of the Open Session Request; RAKP 1 and 3 have the next two
	consoleID uint32 // ours

	want     byte // payload type of the answer that is awaited; 0 is none
	sequence byte // of the channel request that is unanswered; 0 is none

	algorithms
	bmcID       uint32
	consoleRand [16]byte
	bmcRand     [16]byte
	guid        [16]byte
	role        byte
	user        string

	sik, k1, k2 []byte
	done        bool // RAKP 4 was believed
}

func (l *login) ask(d []byte) {
	l.want, l.sequence = 0, 1+l.tag%63 // of 6 bits, and not 0
	m := d[oldHeader:]
	m[4] = l.sequence << 2
	m[len(m)-1] = checksum(m[3 : len(m)-1])
}

func (l *login) send(d []byte) error {
	p := d[headerSize:]
	kind := types.PayloadType(d[1])
	l.sequence = 0
	switch {
	case kind == types.PayloadTypeRmcpOpenSessionRequest && len(p) == 32: // section 13.17
		l.algorithms = algorithms{types.AuthAlg(p[12]), types.IntegrityAlg(p[20]), types.CryptAlg(p[28])}
		if !slices.Contains(safe, l.algorithms) {
			return fmt.Errorf("open a session with %s: not safe", l.algorithms)
		}
		p[0] = l.tag
		binary.LittleEndian.PutUint32(p[4:], l.consoleID)
		l.want = byte(types.PayloadTypeRmcpOpenSessionResponse)
	case kind == types.PayloadTypeRAKPMessage1 && len(p) >= 28 && len(p) == 28+int(p[27]): // section 13.20
		p[0] = l.tag + 1
		l.consoleRand, l.role, l.user = [16]byte(p[8:24]), p[24], string(p[28:])
		l.want = byte(types.PayloadTypeRAKPMessage2)
	case kind == types.PayloadTypeRAKPMessage3 && l.k1 != nil && len(p) >= 8: // section 13.22
		p[0] = l.tag + 2
		if l.Kg != "" {
			code, err := crypto.RAKP3AuthCode(l.auth, l.bmcRand[:], l.consoleID, l.role, l.user,
				crypto.PadPassword20([]byte(l.Password)))
			if err != nil || len(code) != len(p)-8 {
				return fmt.Errorf("sign RAKP 3 of %d bytes: %w", len(p), err)
			}
			copy(p[8:], code)
		}
		l.want = byte(types.PayloadTypeRAKPMessage4)
	default:
		return fmt.Errorf("send to the BMC: a %s message before there is a session", kind)
	}
	return nil
}

// answer judges a datagram that may be the answer to the last message of the login. One answer to each
// message is let through; a repeated one is dropped.
func (l *login) answer(d []byte) (v verdict) {
	switch {
	case l.sequence != 0:
		if v = l.channel(d); v.ok {
			l.sequence = 0
		}
		return v
	case l.want == 0, len(d) < headerSize, d[0] != formatRMCPP, d[1] != l.want,
		binary.LittleEndian.Uint32(d[2:]) != 0:
		return verdict{}
	}
	p := d[headerSize:]
	n := int(binary.LittleEndian.Uint16(d[10:]))
	if n < 2 || n > len(p) {
		return verdict{}
	}
	p = p[:n]
	step, tag := l.opened, l.tag
	switch types.PayloadType(l.want) {
	case types.PayloadTypeRAKPMessage2:
		step, tag = l.proved, l.tag+1
	case types.PayloadTypeRAKPMessage4:
		step, tag = l.agreed, l.tag+2
	}
	if p[0] != tag {
		return verdict{}
	}
	if status := types.RmcpStatusCode(p[1]); status != types.RmcpStatusCodeNoErrors {
		// Some BMCs end their answer here, and some leave our session id out.
		return verdict{refused: types.NewRmcpStatusError(status)}
	}
	if len(p) < 8 || binary.LittleEndian.Uint32(p[4:]) != l.consoleID {
		return verdict{}
	}
	if v = step(p); v.ok {
		l.want = 0
	}
	return v
}

// channel judges the answer to Get Channel Authentication Capabilities, section 22.13.
func (l *login) channel(d []byte) verdict {
	if len(d) < oldHeader+answerSize || d[0] != authNone || binary.LittleEndian.Uint32(d[5:]) != 0 {
		return verdict{}
	}
	m := d[oldHeader:]
	n := int(d[oldHeader-1])
	if n < answerSize || n > len(m) {
		return verdict{}
	}
	// The addresses in the answer are not compared: they are often wrong.
	if m[1]&^3 != responseNetFn || m[4]>>2 != l.sequence || m[5] != channelCommand {
		return verdict{}
	}
	if code := types.CompletionCode(m[6]); code != types.CodeOK {
		return verdict{refused: types.NewResponseError(code, "Get Channel Authentication Capabilities")}
	}
	return verdict{ok: true}
}

// opened judges an Open Session Response, section 13.18.
func (l *login) opened(p []byte) verdict {
	if len(p) < 36 {
		return verdict{}
	}
	if got := (algorithms{
		types.AuthAlg(p[16]), types.IntegrityAlg(p[24]),
		types.CryptAlg(p[32]),
	}); got != l.algorithms {
		return verdict{refused: fmt.Errorf("%w: %s, and not %s", ErrAlgorithms, got, l.algorithms)}
	}
	id := binary.LittleEndian.Uint32(p[8:])
	if id == 0 { // with it, the library would send the session's packets in clear text
		return verdict{}
	}
	l.bmcID = id
	return verdict{ok: true}
}

// proved judges RAKP 2, section 13.21, in which the BMC proves that it knows the password.
func (l *login) proved(p []byte) verdict {
	n := crypto.RAKP2AuthCodeLen(l.auth)
	if len(p) < 40+n {
		return verdict{}
	}
	bmcRand, guid := [16]byte(p[8:24]), [16]byte(p[24:40])
	code := func(key []byte) ([]byte, error) {
		return crypto.RAKP2AuthCode(l.auth, l.consoleID, l.bmcID, l.consoleRand[:], bmcRand[:], guid[:],
			l.role, l.user, key)
	}
	want, err := code(crypto.PadPassword20([]byte(l.Password)))
	if err != nil || !hmac.Equal(want, p[40:40+n]) {
		return verdict{refused: ErrPassword}
	}
	l.bmcRand, l.guid = bmcRand, guid
	key := l.sessionKey()
	if l.sik, l.k1, l.k2, err = crypto.DeriveSessionKeys(l.auth, l.consoleRand[:], l.bmcRand[:], l.role,
		l.user, key); err != nil {
		return verdict{}
	}
	if l.Kg != "" { // the library checks RAKP 2 with K_g
		if want, err = code(key); err != nil {
			return verdict{}
		}
		copy(p[40:40+n], want)
	}
	return verdict{ok: true}
}

// agreed judges RAKP 4, section 13.23.
func (l *login) agreed(p []byte) verdict {
	n := crypto.RAKP4ICVLen(l.auth)
	if len(p) < 8+n {
		return verdict{}
	}
	want, err := crypto.RAKP4ICV(l.auth, l.consoleRand[:], l.bmcID, l.guid[:], l.sik)
	if err != nil || !hmac.Equal(want, p[8:8+n]) {
		return verdict{refused: ErrKey}
	}
	l.done = true
	return verdict{ok: true}
}
