package ipmi

import (
	"bytes"
	"context"
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

	"github.com/bougou/go-ipmi/pkg/handlers"
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

// relay stands between driver and BMC, counts what the driver sends and may answer or drop it.
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
	// The first call tries twice, and that is all.
	if sent[0] == 0 || sent[1] != 0 || sent[2] != 0 || sent[3] != 0 {
		t.Errorf("packets sent with a wrong password, call by call: %d, want some, 0, 0, 0", sent)
	}
	if _, err := right.Power(t.Context()); err != nil {
		t.Errorf("Power() after the password was corrected = %v", err)
	}
}

func TestSuiteIsRemembered(t *testing.T) {
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
		t.Errorf("packets of the first and second conversation with a BMC that has only suite 3: %d, want fewer in the second", sent)
	}
}

func TestNoSuiteInCommon(t *testing.T) {
	r := newRack(t, "127.0.0.1:0", types.CipherSuiteID1)
	_, err := r.open(t, quick(), powertest.Password).Power(t.Context())
	var e *power.Error
	if !errors.Is(err, power.ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(e.Hint, "cipher suite") {
		t.Errorf("Power() of a BMC that has only suite 1 = %v, want ErrUnsupported with a hint", err)
	}
}

func TestLostPacketsAreSentAgain(t *testing.T) {
	t.Parallel()
	r := newRack(t, "127.0.0.1:0")
	wire := newRelay(t, r.addr, func(n int64, _ []byte) bool { return n%3 != 0 })
	// A BMC has four sessions. An answer that is only late would begin another one.
	b := open(t, &Driver{Timeout: time.Second}, power.Target{Address: wire.addr, User: user, Password: powertest.Password})
	for range 3 {
		if _, err := b.Power(t.Context()); err != nil {
			t.Fatalf("Power() with every third packet lost = %v", err)
		}
	}
}

func TestDiesInMidConversation(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	wire := newRelay(t, r.addr, func(n int64, _ []byte) bool { return n <= 5 }) // the session stands, then silence
	b := open(t, &Driver{Timeout: 200 * time.Millisecond}, power.Target{Address: wire.addr, User: user, Password: powertest.Password})
	start := time.Now()
	if err := b.Do(t.Context(), power.ActOn); !errors.Is(err, power.ErrSilent) || time.Since(start) > 20*time.Second {
		t.Errorf("Do(on) with the BMC dying = %v after %s, want ErrSilent soon", err, time.Since(start))
	}
}

// A BMC that answers rubbish is not a reason to crash or to wait for ever.
func TestRubbish(t *testing.T) {
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
	b := open(t, &Driver{Timeout: 20 * time.Millisecond, Backoff: time.Millisecond}, power.Target{Address: l.LocalAddr().String(), User: user})
	for range 20 {
		if _, err := b.Power(t.Context()); err == nil {
			t.Fatal("Power() of a BMC that answers rubbish = nil")
		}
	}
}

func TestPrivilege(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	viewing := open(t, quick(), power.Target{Address: r.addr, User: viewer, Password: powertest.Password})
	err := viewing.Do(t.Context(), power.ActOn)
	if !errors.Is(err, power.ErrPrivilege) || r.chassis.isOn() {
		t.Errorf("Do(on) as a user who may only look = %v, want ErrPrivilege", err)
	}
	err = r.openConsole(t, user).Console(t.Context(), strings.NewReader(""), io.Discard)
	var e *power.Error
	if !errors.Is(err, power.ErrPrivilege) || !errors.As(err, &e) || !strings.Contains(e.Hint, "Administrator") {
		t.Errorf("Console() as an operator, with SOL for administrators = %v, want ErrPrivilege with a hint", err)
	}
}

func TestPasswordIsNowhere(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	var log bytes.Buffer
	d := quick()
	d.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, password := range []string{powertest.Password, powertest.WrongPassword} {
		b := r.open(t, d, password)
		_, err := b.Power(t.Context())
		for _, s := range []string{log.String(), fmt.Sprintf("%v %+v %#v", b, b, b), fmt.Sprintf("%v %+v", err, err)} {
			if strings.Contains(s, password) {
				t.Errorf("the password is in %s", s)
			}
		}
	}
	if !strings.Contains(log.String(), "read power") {
		t.Errorf("log = %q, want a line for the conversation", log.String())
	}
}

func TestConsole(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	console := r.openConsole(t, admin)
	ctx, cancel := context.WithCancel(t.Context())
	in, keys := io.Pipe()
	out := &safeBuffer{}
	done := make(chan error, 1)
	go func() { done <- console.Console(ctx, in, out) }()

	r.console.FeedRX([]byte("login: "))
	poll(t, "the prompt", func() bool { return strings.Contains(out.String(), "login: ") })
	if _, err := keys.Write([]byte("root\r")); err != nil {
		t.Fatal(err)
	}
	poll(t, "the keys at the machine", func() bool { return strings.Contains(r.console.TXString(), "root\r") })

	// Commands go on while the console is open.
	if _, err := r.open(t, quick(), powertest.Password).Power(t.Context()); err != nil {
		t.Errorf("Power() while the console is open = %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Console() when ctx ends = %v, want nil", err)
	}
	poll(t, "the payload to be deactivated", func() bool { return r.bmc.SOL.ActiveSessionID(1) == 0 })
}

func TestConsoleEndsWithInput(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	console := r.openConsole(t, admin)
	if err := console.Console(t.Context(), strings.NewReader("reboot\r"), io.Discard); err != nil {
		t.Errorf("Console() at the end of its input = %v, want nil", err)
	}
	if got := r.console.TXString(); got != "reboot\r" {
		t.Errorf("the machine got %q, want %q", got, "reboot\r")
	}
}

func TestConsoleIsTakenOver(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	first := make(chan error, 1)
	in1, keys1 := io.Pipe()
	defer keys1.Close()
	go func() {
		first <- r.openConsole(t, admin).Console(t.Context(), in1, io.Discard)
	}()
	poll(t, "the first console", func() bool { return r.bmc.SOL.ActiveSessionID(1) != 0 })
	holder := r.bmc.SOL.ActiveSessionID(1)

	ctx, cancel := context.WithCancel(t.Context())
	in2, keys2 := io.Pipe()
	defer keys2.Close()
	second := make(chan error, 1)
	out := &safeBuffer{}
	go func() {
		second <- r.openConsole(t, admin).Console(ctx, in2, out)
	}()
	poll(t, "the second console", func() bool { s := r.bmc.SOL.ActiveSessionID(1); return s != 0 && s != holder })
	r.console.FeedRX([]byte("hello"))
	poll(t, "output at the second console", func() bool { return strings.Contains(out.String(), "hello") })
	if err := <-first; err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("the first Console() = %v, want that the BMC hung up", err)
	}
	r.console.FeedRX([]byte("still here"))
	poll(t, "output at the second console after the first has gone", func() bool { return strings.Contains(out.String(), "still here") })
	cancel()
	if err := <-second; err != nil {
		t.Errorf("the second Console() = %v, want nil", err)
	}
}

// A listener hears the machine, types nothing, and loses the console to whoever asks for one.
func TestListenGivesWay(t *testing.T) {
	r := newRack(t, "127.0.0.1:0")
	heard := &safeBuffer{}
	listening := make(chan error, 1)
	go func() { listening <- r.openConsole(t, admin).Listen(t.Context(), heard) }()
	poll(t, "the listener", func() bool { return r.bmc.SOL.ActiveSessionID(1) != 0 })
	r.console.FeedRX([]byte("Kernel panic"))
	poll(t, "what was said at the listener", func() bool { return heard.String() == "Kernel panic" })

	in, keys := io.Pipe()
	defer keys.Close()
	ctx, cancel := context.WithCancel(t.Context())
	out := &safeBuffer{}
	console := make(chan error, 1)
	go func() { console <- r.openConsole(t, admin).Console(ctx, in, out) }()
	if err := <-listening; err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("Listen() when a console was opened = %v, want that the BMC hung up", err)
	}
	r.console.FeedRX([]byte("login: "))
	poll(t, "output at the console", func() bool { return strings.Contains(out.String(), "login: ") })

	holder := r.bmc.SOL.ActiveSessionID(1)
	if err := r.openConsole(t, admin).Listen(t.Context(), heard); !errors.Is(err, power.ErrTaken) {
		t.Errorf("Listen() while there is a console = %v, want ErrTaken", err)
	}
	if got := r.bmc.SOL.ActiveSessionID(1); got != holder {
		t.Errorf("after Listen() session %d has the console, want %d, which had it", got, holder)
	}
	cancel()
	if err := <-console; err != nil {
		t.Errorf("Console() = %v, want nil", err)
	}
	if typed := r.console.TXString(); typed != "" {
		t.Errorf("the machine was told %q, want nothing", typed)
	}

	ctx, cancel = context.WithCancel(t.Context())
	go func() { listening <- r.openConsole(t, admin).Listen(ctx, heard) }()
	poll(t, "the listener again", func() bool { return r.bmc.SOL.ActiveSessionID(1) != 0 })
	cancel()
	if err := <-listening; err != nil {
		t.Errorf("Listen() when ctx ends = %v, want nil", err)
	}
	poll(t, "the payload to be deactivated", func() bool { return r.bmc.SOL.ActiveSessionID(1) == 0 })
}

// Whoever wants the console must not wait for a listener that a silent BMC keeps waiting.
func TestListenToASilentBMCEndsWithCtx(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		d := &Driver{} // with the timing of a real one
		done <- open(t, d, power.Target{Address: nobody(t), User: admin, Password: powertest.Password}).(power.Console).Listen(ctx, io.Discard)
	}()
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	if err := <-done; err != nil {
		t.Errorf("Listen() when ctx ends = %v, want nil", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Listen() ended %s after ctx, want within one answer's time", took)
	}
}

func TestListenToABMCWithoutSOL(t *testing.T) {
	r := newRackWith(t, "127.0.0.1:0", func(reg *handlers.Registry) {
		reg.RegisterFunc(types.CommandActivatePayload, func(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error) {
			return nil, codePayloadDisabled, nil
		})
	})
	err := r.openConsole(t, admin).Listen(t.Context(), io.Discard)
	var e *power.Error
	if !errors.Is(err, power.ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(e.Hint, "enable serial over LAN") {
		t.Errorf("Listen() = %v, want ErrUnsupported with a hint", err)
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
