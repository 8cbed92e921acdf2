package ipmi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func TestOpenRefuses(t *testing.T) {
	for _, target := range []power.Target{
		{Address: "bmc.example"},
		{Address: "192.0.2.7", User: strings.Repeat("u", 17)},
		{Address: "192.0.2.7", User: "u", Password: strings.Repeat("p", 21)},
	} {
		_, err := Open(target)
		if err == nil || strings.Contains(err.Error(), "ppp") {
			t.Errorf("Open(%v) = %v, want an error without the password", target, err)
		}
	}
}

func TestClosedPortIsSilent(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.LocalAddr().String()
	_ = l.Close()
	_, err = open(t, quick(), power.Target{Address: addr, User: user}).Power(t.Context())
	if !errors.Is(err, power.ErrSilent) || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("Power() at a closed port = %v, want ErrSilent that says so", err)
	}
}

// relay passes packets between driver and BMC, counts what the driver sends and may drop it.
type relay struct {
	addr  string
	count atomic.Int64
	// pass sees each packet from the driver; false drops it.
	pass func(n int64, packet []byte) bool
}

func newRelay(t testing.TB, to string, pass func(n int64, packet []byte) bool) *relay {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: front.LocalAddr().String(), pass: pass}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = front.Close(); wg.Wait() })
	wg.Go(func() {
		backs := map[string]net.Conn{}
		defer func() {
			for _, b := range backs {
				_ = b.Close()
			}
		}()
		buf := make([]byte, 2048)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			if i := r.count.Add(1); r.pass != nil && !r.pass(i, buf[:n]) {
				continue
			}
			back := backs[from.String()]
			if back == nil {
				if back, err = net.Dial("udp", to); err != nil {
					return
				}
				backs[from.String()] = back
				wg.Go(func() {
					buf := make([]byte, 2048)
					for {
						n, err := back.Read(buf)
						if err != nil {
							return
						}
						_, _ = front.WriteTo(buf[:n], from)
					}
				})
			}
			_, _ = back.Write(buf[:n])
		}
	})
	return r
}

func TestRefusedCredentialsAreNotTriedForEver(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	wire := newRelay(t, r.addr, nil)
	d := quick()
	wrong := open(t, d, power.Target{Address: wire.addr, User: user, Password: powertest.WrongPassword})
	right := open(t, d, power.Target{Address: wire.addr, User: user, Password: powertest.Password})
	var sent []int64
	for range 4 {
		before := wire.count.Load()
		if _, err := wrong.Power(t.Context()); !errors.Is(err, power.ErrRefused) {
			t.Fatalf("Power() = %v, want ErrRefused", err)
		}
		sent = append(sent, wire.count.Load()-before)
	}
	// Only the first call sends anything: it tries twice.
	if sent[0] == 0 || sent[1] != 0 || sent[2] != 0 || sent[3] != 0 {
		t.Errorf("packets sent with a wrong password, call by call: %d, want some, 0, 0, 0", sent)
	}
	if _, err := right.Power(t.Context()); err != nil {
		t.Errorf("Power() after the password was corrected = %v", err)
	}
}

func TestSuiteIsRemembered(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0", types.CipherSuiteID3)
	wire := newRelay(t, r.addr, nil)
	b := open(t, quick(), power.Target{Address: wire.addr, User: user, Password: powertest.Password})
	var sent [2]int64
	for i := range sent {
		before := wire.count.Load()
		if _, err := b.Power(t.Context()); err != nil {
			t.Fatal(err)
		}
		sent[i] = wire.count.Load() - before
	}
	if sent[1] >= sent[0] {
		t.Errorf("packets of the first and second conversation with a BMC that has only suite 3: %d, "+
			"want fewer in the second", sent)
	}
}

func TestNoSuiteInCommon(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0", types.CipherSuiteID1)
	_, err := r.open(t, quick(), powertest.Password).Power(t.Context())
	var e *power.Error
	if !errors.Is(err, power.ErrUnsupported) || !errors.As(err, &e) ||
		!strings.Contains(e.Hint, "cipher suite") {
		t.Errorf("Power() of a BMC that has only suite 1 = %v, want ErrUnsupported with a hint", err)
	}
}

func TestLostPacketsAreSentAgain(t *testing.T) {
	testnet.Long(t)
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	wire := newRelay(t, r.addr, func(n int64, _ []byte) bool { return n%3 != 0 })
	// The BMC has four session slots. With a shorter timeout, an answer that is only late would make the
	// driver begin another session.
	b := open(t, &Driver{Timeout: time.Second}, power.Target{
		Address: wire.addr, User: user, Password: powertest.Password,
	})
	for range 3 {
		if _, err := b.Power(t.Context()); err != nil {
			t.Fatalf("Power() with every third packet lost = %v", err)
		}
	}
}

func TestDiesInMidConversation(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	// Five packets open the session; then the BMC is silent.
	wire := newRelay(t, r.addr, func(n int64, _ []byte) bool { return n <= 5 })
	b := open(t, &Driver{Timeout: 200 * time.Millisecond}, power.Target{
		Address: wire.addr, User: user, Password: powertest.Password,
	})
	start := time.Now()
	if err := b.Do(t.Context(), power.ActOn); !errors.Is(err, power.ErrSilent) ||
		time.Since(start) > 20*time.Second {
		t.Errorf("Do(on) with the BMC dying = %v after %s, want ErrSilent soon", err, time.Since(start))
	}
}

// A BMC that answers rubbish is not a reason to crash or to wait for ever.
func TestRubbish(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		buf := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(buf[:i%(n+1)], from) // what it was sent, cut short somewhere
		}
	}()
	b := open(t, &Driver{Timeout: 20 * time.Millisecond, Backoff: time.Millisecond}, power.Target{
		Address: l.LocalAddr().String(), User: user,
	})
	for range 20 {
		if _, err := b.Power(t.Context()); err == nil {
			t.Fatal("Power() of a BMC that answers rubbish = nil")
		}
	}
}

func TestPrivilege(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	viewing := open(t, quick(), power.Target{Address: r.addr, User: viewer, Password: powertest.Password})
	err := viewing.Do(t.Context(), power.ActOn)
	if !errors.Is(err, power.ErrPrivilege) || r.chassis.isOn() {
		t.Errorf("Do(on) as a user who may only look = %v, want ErrPrivilege", err)
	}
	err = r.openConsole(t, user).Console(t.Context(), strings.NewReader(""), io.Discard)
	var e *power.Error
	if !errors.Is(err, power.ErrPrivilege) || !errors.As(err, &e) ||
		!strings.Contains(e.Hint, "Administrator") {
		t.Errorf("Console() as an operator, with SOL for administrators = %v, want ErrPrivilege with a hint",
			err)
	}
}

func TestPasswordIsNowhere(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	var log bytes.Buffer
	d := quick()
	d.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, password := range []string{powertest.Password, powertest.WrongPassword} {
		b := r.open(t, d, password)
		_, err := b.Power(t.Context())
		for _, s := range []string{
			log.String(), fmt.Sprintf("%v %+v %#v", b, b, b),
			fmt.Sprintf("%v %+v", err, err),
		} {
			if strings.Contains(s, password) {
				t.Errorf("the password is in %s", s)
			}
		}
	}
	if !strings.Contains(log.String(), "read power") {
		t.Errorf("log = %q, want a line for the conversation", log.String())
	}
}

func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
