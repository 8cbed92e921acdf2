package ipmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// attacker relays packets between driver and BMC. It keeps what the driver sends, and answer says what the
// driver gets in place of each packet of the BMC. The driver cannot tell a forged packet from the BMC's by
// its address.
type attacker struct {
	addr   string
	answer func(d []byte) [][]byte

	mu   sync.Mutex
	seen [][]byte // what the driver sent
}

func newAttacker(t testing.TB, bmc string, answer func(d []byte) [][]byte) *attacker {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{addr: front.LocalAddr().String(), answer: answer}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = front.Close(); wg.Wait() })
	wg.Go(func() {
		backs := map[string]net.Conn{}
		defer func() {
			for _, b := range backs {
				_ = b.Close()
			}
		}()
		buf := make([]byte, 4096)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			a.mu.Lock()
			a.seen = append(a.seen, slices.Clone(buf[:n]))
			a.mu.Unlock()
			back := backs[from.String()]
			if back == nil {
				if back, err = net.Dial("udp", bmc); err != nil {
					return
				}
				backs[from.String()] = back
				wg.Go(func() {
					buf := make([]byte, 4096)
					for {
						n, err := back.Read(buf)
						if err != nil {
							return
						}
						a.mu.Lock()
						answers := a.answer(slices.Clone(buf[:n]))
						a.mu.Unlock()
						for _, d := range answers {
							_, _ = front.WriteTo(d, from)
						}
					}
				})
			}
			_, _ = back.Write(buf[:n])
		}
	})
	return a
}

// sent returns the payloads of that type that the driver sent outside a session.
func (a *attacker) sent(kind types.PayloadType) (payloads [][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.seen {
		if len(d) > 16 && d[4] == 6 && d[5] == byte(kind) {
			payloads = append(payloads, d[16:])
		}
	}
	return payloads
}

func (a *attacker) open(t testing.TB, name string) power.BMC {
	return open(t, quick(), power.Target{Address: a.addr, User: name, Password: powertest.Password})
}

// kind returns the payload type of an RMCP+ packet, with its flags, and 0xff for any other packet.
func kind(d []byte) byte {
	if len(d) > 16 && d[4] == 6 {
		return d[5]
	}
	return 0xff
}

func setup(d []byte) bool {
	return slices.Contains([]types.PayloadType{
		types.PayloadTypeRmcpOpenSessionResponse, types.PayloadTypeRAKPMessage2,
		types.PayloadTypeRAKPMessage4,
	}, types.PayloadType(kind(d)))
}

// inSession says whether d is a packet of a session; the flags are those that a genuine one has.
func inSession(d []byte) bool { return kind(d) != 0xff && kind(d)&0xc0 == 0xc0 }

// packet makes an RMCP+ packet that needs no key: it is neither encrypted nor signed, whatever kind says.
func packet(kind byte, session, sequence uint32, payload []byte) []byte {
	d := append([]byte{6, 0, 0xff, 7, 6, kind}, make([]byte, 10)...)
	binary.LittleEndian.PutUint32(d[6:], session)
	binary.LittleEndian.PutUint32(d[10:], sequence)
	binary.LittleEndian.PutUint16(d[14:], uint16(len(payload)))
	return append(d, payload...)
}

// One such UDP packet ended the whole appliance, and again after each restart.
func TestEncryptedPacketBeforeTheSession(t *testing.T) {
	t.Parallel()
	crash := packet(0x80, 0, 0, nil)
	others := [][]byte{
		crash, packet(0xc0, 0, 0, nil), packet(0x81, 0, 0, nil), packet(0xc1, 0, 0,
			make([]byte, 15)), packet(0x80, 0, 0, make([]byte, 17)),
		packet(0x93, 0, 0, nil), packet(0x02, 0, 0, nil), crash[:5], crash[:4],
		{6},
		{},
		{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, 0, 0, 0xff},
	}
	r := newRack(t, "127.0.0.1:0")
	a := newAttacker(t, r.addr, func(d []byte) [][]byte { return append(slices.Clone(others), d) })
	if _, err := a.open(t, user).Power(t.Context()); err != nil {
		t.Errorf("Power() with such packets before each answer = %v, want that they are ignored", err)
	}

	l := newAttacker(t, r.addr, func(d []byte) [][]byte {
		if kind(d) == byte(types.PayloadTypeRAKPMessage2) {
			return others
		}
		return [][]byte{d}
	})
	if _, err := l.open(t, user).Power(t.Context()); !errors.Is(err, power.ErrSilent) {
		t.Errorf("Power() with such packets in place of RAKP 2 = %v, want ErrSilent", err)
	}
}

func TestAlgorithmsAreThoseAskedFor(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string][3]byte{ // authentication, integrity, confidentiality: section 13.28
		"suite 0":       {0, 0, 0},
		"suite 1":       {1, 0, 0},
		"suite 2":       {1, 1, 0},
		"no integrity":  {3, 0, 1},
		"no encryption": {3, 4, 0},
		"suite 6":       {2, 0, 0}, "RC4": {1, 1, 2}, "reserved bits": {0xc3, 4, 1}, "unknown": {9, 9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRack(t, "127.0.0.1:0")
			a := newAttacker(t, r.addr, func(d []byte) [][]byte {
				if kind(d) == byte(types.PayloadTypeRmcpOpenSessionResponse) {
					d[16+16], d[16+24], d[16+32] = answer[0], answer[1], answer[2]
				}
				return [][]byte{d}
			})
			_, err := a.open(t, user).Power(t.Context())
			if !errors.Is(err, power.ErrUnsupported) || !strings.Contains(err.Error(), "other algorithms") {
				t.Errorf("Power() = %v, want ErrUnsupported that says so", err)
			}
			if sent := a.sent(types.PayloadTypeRAKPMessage1); len(sent) > 0 {
				t.Errorf("the login went on: %x", sent)
			}
			for _, p := range a.sent(types.PayloadTypeRmcpOpenSessionRequest) {
				if asked := [3]byte{p[12], p[20], p[28]}; asked != [3]byte{3, 4, 1} &&
					asked != [3]byte{1, 1, 1} {
					t.Errorf("algorithms %v were asked for, want those of suites 17 and 3", asked)
				}
			}
		})
	}
}

// A forged answer to the login does not count when the answer of the BMC follows a moment later.
func TestForgedAnswersToTheLogin(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]func(d []byte) []byte{
		"refusals": func(d []byte) []byte {
			d[17] = byte(types.RmcpStatusCodeUnauthorizedName)
			return d[:24]
		},
		"refusals cut short": func(d []byte) []byte {
			d[14], d[15], d[17] = 2, 0, byte(types.RmcpStatusCodeNoCipherSuiteMatch)
			return d[:18]
		},
		"proofs that are none":    func(d []byte) []byte { d[len(d)-1] ^= 1; return d },
		"other algorithms":        func(d []byte) []byte { clear(d[32:]); return d },
		"without a session id":    func(d []byte) []byte { clear(d[20:24]); return d },
		"of another message":      func(d []byte) []byte { d[16] ^= 0x80; return d },
		"longer than they are":    func(d []byte) []byte { d[15] = 0xff; return d },
		"as if it were encrypted": func(d []byte) []byte { d[5] |= 0x80; return d },
		"as if it were signed":    func(d []byte) []byte { d[5] |= 0x40; return d },
		"cut short":               func(d []byte) []byte { return d[:len(d)-8] },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRack(t, "127.0.0.1:0")
			r.chassis.set(true)
			a := newAttacker(t, r.addr, func(d []byte) [][]byte {
				if setup(d) {
					return [][]byte{forge(slices.Clone(d)), d}
				}
				return [][]byte{d}
			})
			if on, err := a.open(t, user).Power(t.Context()); err != nil || !on {
				t.Errorf("Power() with such answers before the true ones = %v, %v, want true, nil", on, err)
			}
		})
	}
}

func TestRAKP4IsVerified(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	a := newAttacker(t, r.addr, func(d []byte) [][]byte {
		if kind(d) == byte(types.PayloadTypeRAKPMessage4) {
			d[24] ^= 1
		}
		return [][]byte{d}
	})
	_, err := a.open(t, user).Power(t.Context())
	if err == nil || !strings.Contains(err.Error(), "session's key") {
		t.Errorf("Power() with a RAKP 4 that does not verify = %v, want an error that says so", err)
	}
	if errors.Is(err, power.ErrRefused) {
		t.Errorf("Power() = %v, and the password was right", err)
	}
}

// chassisOn makes the answer to Get Chassis Status with that sequence number: the machine is on.
func chassisOn(sequence byte) []byte {
	m := []byte{0x81, 0x01 << 2, 0, 0x20, sequence << 2, 0x01, 0, 0x21, 0x10, 0x40, 0}
	m[2] = -(m[0] + m[1])
	for _, b := range m[3:10] {
		m[10] -= b
	}
	return m
}

// An attacker who knows the session's id can neither add answers to the session nor end it.
func TestForgedRepliesInASession(t *testing.T) {
	t.Parallel()
	var old [][]byte // genuine packets of an earlier session and of this one
	for name, forge := range map[string]func(d []byte) [][]byte{
		"in clear text": func(d []byte) (forged [][]byte) {
			id, n := binary.LittleEndian.Uint32(d[6:]), binary.LittleEndian.Uint32(d[10:])
			for sequence := range byte(64) {
				forged = append(forged, packet(0, id, n, chassisOn(sequence)),
					packet(0, 0, 0, chassisOn(sequence)))
				forged = append(forged, // IPMI 1.5
					append([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11}, chassisOn(sequence)...))
			}
			return forged
		},
		"signed, they say": func(d []byte) (forged [][]byte) {
			id, n := binary.LittleEndian.Uint32(d[6:]), binary.LittleEndian.Uint32(d[10:])
			for sequence := range byte(64) {
				forged = append(forged,
					append(packet(0x40, id, n, chassisOn(sequence)), 0xff, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
						0, 0, 0, 0, 0, 0))
			}
			return forged
		},
		"with a bit flipped": func(d []byte) (forged [][]byte) {
			for i := range d {
				f := slices.Clone(d)
				f[i] ^= 1 << (i % 8)
				forged = append(forged, f)
			}
			return forged
		},
		"not encrypted, they say": func(d []byte) [][]byte { d[5] &^= 0x80; return [][]byte{d} },
		"not signed, they say":    func(d []byte) [][]byte { d[5] &^= 0x40; return [][]byte{d} },
		"cut short": func(d []byte) (forged [][]byte) {
			for i := range d {
				forged = append(forged, d[:i])
			}
			return forged
		},
		"sent before": func(d []byte) [][]byte {
			again := slices.Clone(old)
			old = append(old, d)
			return again
		},
		"statuses that end a login": func(d []byte) [][]byte {
			refusal := make([]byte, 8)
			refusal[1] = byte(types.RmcpStatusCodeInvalidSessionID)
			copy(refusal[4:], d[6:10])
			return [][]byte{
				packet(0x11, 0, 0, refusal), packet(0x13, 0, 0, refusal),
				packet(0x15, 0, 0, refusal),
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRack(t, "127.0.0.1:0")
			a := newAttacker(t, r.addr, func(d []byte) [][]byte {
				if inSession(d) {
					return append(forge(slices.Clone(d)), d)
				}
				return [][]byte{d}
			})
			b := a.open(t, user)
			for range 2 {
				if on, err := b.Power(t.Context()); err != nil || on {
					t.Fatalf("Power() of a machine that is off = %v, %v, want false, nil", on, err)
				}
			}
		})
	}
}

func TestForgedConsole(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	var genuine [][]byte
	a := newAttacker(t, r.addr, func(d []byte) [][]byte {
		if kind(d) != 0xc1 {
			return [][]byte{d}
		}
		id, n := binary.LittleEndian.Uint32(d[6:]), binary.LittleEndian.Uint32(d[10:])
		var out [][]byte
		for sequence := range byte(16) {
			said := append([]byte{sequence, sequence, 0, 0}, "FORGED"...)
			out = append(out, packet(0x01, id, n, said), packet(0x41, id, n, said), packet(0xc1, id, n, said),
				packet(0x01, id, n, []byte{sequence, sequence, 0, 0x10})) // "SOL is being deactivated"
		}
		out = append(out, genuine...) // sent again
		genuine = append(genuine, d)
		return append(out, d)
	})
	ctx, cancel := context.WithCancel(t.Context())
	out := &safeBuffer{}
	done := make(chan error, 1)
	go func() { done <- a.open(t, admin).(power.Console).Listen(ctx, out) }()
	var want bytes.Buffer
	for range 8 {
		r.console.FeedRX([]byte("one line\r\n"))
		want.WriteString("one line\r\n")
		poll(t, "what the machine said", func() bool { return len(out.String()) >= want.Len() })
	}
	if got := out.String(); got != want.String() {
		t.Errorf("the console shows %q, want %q", got, want.String())
	}
	select {
	case err := <-done:
		t.Errorf("Listen() = %v, want that it goes on", err)
	default:
	}
	cancel()
	<-done
}
