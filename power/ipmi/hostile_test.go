package ipmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// hostile is a BMC that knows the password. A script says, answer by answer, what it does wrong. It is also
// the connection to itself, without sockets: a Read for which there is no answer times out at once.
type hostile struct {
	net.Conn
	t      testing.TB
	script *bytes.Reader
	queue  [][]byte

	auth                types.AuthAlg
	integrity           types.IntegrityAlg
	console, sequence   uint32
	consoleRand, random [16]byte
	role                byte
	user                string
	sik, k1, k2         []byte
	active              bool
	said                byte // how many packets of the console were sent
	override            [5]byte
}

const hostileID = 0x00000b3c

func (h *hostile) Close() error                    { return nil }
func (h *hostile) RemoteAddr() net.Addr            { return &net.UDPAddr{} }
func (h *hostile) SetReadDeadline(time.Time) error { return nil }

func (h *hostile) Read(p []byte) (int, error) {
	if len(h.queue) == 0 {
		return 0, &net.OpError{Op: "read", Net: "udp", Err: os.ErrDeadlineExceeded}
	}
	n := copy(p, h.queue[0])
	h.queue = h.queue[1:]
	return n, nil
}

func (h *hostile) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(powertest.Password)) {
		h.t.Fatalf("the password was sent: %x", p)
	}
	if h.active && (p[4] != 6 || p[5]&0xc0 != 0xc0) {
		h.t.Fatalf("sent in clear text in the session: %x", p)
	}
	h.answer(p[4:])
	return len(p), nil
}

// answer makes the right answer to a request, and lets the script change it.
func (h *hostile) answer(d []byte) {
	if d[0] == 0 { // Get Channel Authentication Capabilities
		m := d[10:]
		h.send(0, ipmiAnswer(m, 0, []byte{1, 0x84, 4, 3, 0, 0, 0, 0}))
		return
	}
	kind, p := d[1], d[12:12+int(binary.LittleEndian.Uint16(d[10:]))]
	switch types.PayloadType(kind) {
	case types.PayloadTypeRmcpOpenSessionRequest:
		h.active, h.sequence = false, 0
		h.console, h.auth, h.integrity = binary.LittleEndian.Uint32(p[4:]), types.AuthAlg(p[12]),
			types.IntegrityAlg(p[20])
		a := append([]byte{p[0], 0, 4, 0}, p[4:8]...)
		a = binary.LittleEndian.AppendUint32(a, hostileID)
		h.send(0x11, append(a, p[8:32]...))
	case types.PayloadTypeRAKPMessage1:
		h.consoleRand, h.role, h.user = [16]byte(p[8:24]), p[24], string(p[28:])
		key := crypto.PadPassword20([]byte(powertest.Password))
		code, _ := crypto.RAKP2AuthCode(h.auth, h.console, hostileID, h.consoleRand[:], h.random[:],
			make([]byte, 16), h.role, h.user, key)
		h.sik, h.k1, h.k2, _ = crypto.DeriveSessionKeys(h.auth, h.consoleRand[:], h.random[:], h.role, h.user,
			key)
		a := binary.LittleEndian.AppendUint32([]byte{p[0], 0, 0, 0}, h.console)
		h.send(0x13, slices.Concat(a, h.random[:], make([]byte, 16), code))
	case types.PayloadTypeRAKPMessage3:
		code, _ := crypto.RAKP4ICV(h.auth, h.consoleRand[:], hostileID, make([]byte, 16), h.sik)
		a := binary.LittleEndian.AppendUint32([]byte{p[0], 0, 0, 0}, h.console)
		h.send(0x15, append(a, code...))
	case 0xc0:
		m, err := crypto.DecryptAESPayload(p, h.k2)
		if err != nil {
			h.t.Fatal(err)
		}
		h.active = true
		h.send(0xc0, ipmiAnswer(m, 0, h.command(m[1]>>2, m[5], m[6:len(m)-1])))
	case 0xc1:
		m, err := crypto.DecryptAESPayload(p, h.k2)
		if err != nil {
			h.t.Fatal(err)
		}
		a := []byte{0, m[0], byte(len(m) - 4), 0}
		if h.said++; h.said < 4 {
			a[0] = h.said
			a = append(a, "login: "...)
		}
		h.send(0xc1, a)
	}
}

func (h *hostile) command(netFn, command byte, data []byte) []byte {
	switch {
	case netFn == 0 && command == 0x01: // Get Chassis Status
		return []byte{1, 0, 0}
	case netFn == 0 && command == 0x08 && len(data) == 6 && data[0] == paramBootFlags:
		h.override = [5]byte(data[1:])
	case netFn == 0 && command == 0x09: // Get System Boot Options
		return append([]byte{1, paramBootFlags}, h.override[:]...)
	case netFn == 6 && command == 0x3b: // Set Session Privilege Level
		return data
	case netFn == 6 && command == 0x48: // Activate Payload
		return []byte{0, 0, 0, 0, 0xff, 0, 0xff, 0, 0x6f, 0x02, 0xff, 0xff}
	}
	return nil
}

func ipmiAnswer(request []byte, code byte, data []byte) []byte {
	a := []byte{request[3], request[1] + 4, 0, request[0], request[4], request[5], code}
	a[2] = -(a[0] + a[1])
	a = append(a, data...)
	var sum byte
	for _, b := range a[3:] {
		sum -= b
	}
	return append(a, sum)
}

// What a script does to an answer. The comments list the bytes that each takes from the script. "Sealed well"
// means encrypted and signed as the BMC would.
const (
	honest = iota
	silence
	instead    // n, n bytes: this datagram
	before     // n, n bytes: this datagram, and then the honest one
	payload    // n, n bytes: this payload, sealed well
	change     // at, mask: of the payload, sealed well
	corrupt    // at, mask: of the datagram
	shorten    // n: of the payload, sealed well
	lengthen   // n: of the payload, sealed well
	retype     // kind: of payload and flags, sealed well
	twice      // the datagram, two times
	renumber   // 4 bytes: the session's sequence number
	ciphertext // n, n bytes: in place of what is encrypted, signed well
	complete   // code: the completion code or status, sealed well
	flood      // n: the answer n times, as new packets
	scriptOps
)

func (h *hostile) next() byte { b, _ := h.script.ReadByte(); return b }

func (h *hostile) bytes() []byte {
	b := make([]byte, h.next())
	n, _ := h.script.Read(b)
	return b[:n]
}

func (h *hostile) send(kind byte, p []byte) {
	if h.script.Len() == 0 {
		h.queue = append(h.queue, h.seal(kind, p, nil))
		return
	}
	times := 1
	var cipher []byte
	switch op := h.next() % scriptOps; op {
	case silence:
		return
	case instead:
		h.queue = append(h.queue, h.bytes())
		return
	case before:
		h.queue = append(h.queue, h.bytes())
	case payload:
		p = h.bytes()
	case change:
		p[int(h.next())%len(p)] ^= h.next()
	case corrupt:
		d := h.seal(kind, p, nil)
		d[int(h.next())%len(d)] ^= h.next()
		h.queue = append(h.queue, d)
		return
	case shorten:
		p = p[:len(p)-min(len(p), int(h.next()))]
	case lengthen:
		p = append(p, make([]byte, h.next())...)
	case retype:
		kind = h.next()
	case twice:
		d := h.seal(kind, p, nil)
		h.queue = append(h.queue, d, d)
		return
	case renumber:
		var n [4]byte
		_, _ = h.script.Read(n[:])
		h.sequence = binary.LittleEndian.Uint32(n[:])
	case ciphertext:
		cipher = h.bytes()
	case complete:
		at := 6
		if kind > 1 && kind < 0xc0 {
			at = 1
		}
		p[min(at, len(p)-1)] = h.next()
	case flood:
		times = int(h.next())
	}
	for range times {
		h.queue = append(h.queue, h.seal(kind, p, cipher))
	}
}

// seal makes the datagram of a payload, encrypted and signed as the BMC would. cipher, when set, takes the
// place of what is encrypted.
func (h *hostile) seal(kind byte, p, cipher []byte) []byte {
	if kind == 0 && !h.active {
		return slices.Concat([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(p))}, p)
	}
	if kind&0xc0 == 0 || h.k2 == nil {
		return packet(kind, 0, 0, p)
	}
	h.sequence++
	if kind&0x80 != 0 {
		p, _ = crypto.EncryptAESPayload(p, h.k2, make([]byte, 16))
	}
	if cipher != nil {
		p = cipher
	}
	d := packet(kind, h.console, h.sequence, p)
	if kind&0x40 == 0 {
		return d
	}
	pad := types.IntegrityPadLen(12, len(p))
	d = append(d, bytes.Repeat([]byte{0xff}, pad)...)
	d = append(d, byte(pad), 7)
	code, _ := crypto.SessionIntegrityAuthCode(h.integrity, d[4:], h.k1, "")
	return append(d, code...)
}

// calls are the calls of a driver that the tests make.
var calls = []func(context.Context, power.BMC) error{
	func(ctx context.Context, b power.BMC) error { _, err := b.Power(ctx); return err },
	func(ctx context.Context, b power.BMC) error { return b.Do(ctx, power.ActOff) },
	func(ctx context.Context, b power.BMC) error { _, err := b.Boot(ctx); return err },
	func(ctx context.Context, b power.BMC) error {
		return b.SetBoot(ctx, power.Boot{Device: power.DevicePXE, EFI: true})
	},
	func(ctx context.Context, b power.BMC) error {
		return b.(power.Console).Console(ctx, strings.NewReader("x"), io.Discard)
	},
	func(ctx context.Context, b power.BMC) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		return b.(power.Console).Listen(ctx, io.Discard)
	},
}

// play makes one call to a hostile BMC with that script.
func play(t testing.TB, call int, script []byte) error {
	d := &Driver{Timeout: 100 * time.Microsecond, Backoff: 1}
	h := &hostile{t: t, script: bytes.NewReader(script)}
	d.dial = func(context.Context, netip.AddrPort) (net.Conn, error) {
		h.active, h.queue = false, nil
		return h, nil
	}
	b := open(t, d, power.Target{Address: "192.0.2.7", User: user, Password: powertest.Password})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := calls[call%len(calls)](ctx, b)
	if ctx.Err() != nil {
		t.Fatalf("it did not end within a minute: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "a bug of ours") {
		t.Fatal(err)
	}
	return err
}

// With an empty script, the BMC of the fuzz target works.
func TestHonestScript(t *testing.T) {
	for call := range calls {
		if err := play(t, call, nil); err != nil {
			t.Errorf("call %d = %v", call, err)
		}
	}
}

// FuzzHostileBMC tests the driver with BMCs that know the password and are hostile at every stage, the
// console included. It fails on a panic, also in a goroutine of the library, on a call that does not end, and
// on a password or clear text on the wire.
func FuzzHostileBMC(f *testing.F) {
	for call := range calls {
		for stage := range 9 {
			for _, op := range [][]byte{
				{silence},
				{instead, 16, 6, 0, 0xff, 7, 6, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
				{before, 5, 6, 0, 0xff, 7, 6},
				{payload, 0},
				{payload, 1, 0},
				{change, 1, 0x0f},
				{corrupt, 5, 0xc0},
				{shorten, 1},
				{shorten, 8},
				{lengthen, 255},
				{retype, 0x80},
				{retype, 0xc1},
				{retype, 0xc0},
				{twice},
				{renumber, 0xff, 0xff, 0xff, 0xff},
				{ciphertext, 0},
				{ciphertext, 16, 1},
				{ciphertext, 17},
				{ciphertext, 32},
				{complete, 0xc0},
				{complete, 0xd4},
				{flood, 255},
			} {
				f.Add(byte(call), append(make([]byte, stage), op...))
			}
		}
	}
	f.Fuzz(func(t *testing.T, call byte, script []byte) {
		t.Parallel() // it waits more than it computes
		_ = play(t, int(call), script)
	})
}
