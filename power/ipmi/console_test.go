package ipmi

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestConsole(t *testing.T) {
	t.Parallel()
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
	poll(t, "the keys at the machine", func() bool {
		return strings.Contains(r.console.TXString(), "root\r")
	})

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
	t.Parallel()
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
	testnet.Long(t)
	t.Parallel()
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
	poll(t, "the second console", func() bool {
		s := r.bmc.SOL.ActiveSessionID(1)
		return s != 0 && s != holder
	})
	r.console.FeedRX([]byte("hello"))
	poll(t, "output at the second console", func() bool { return strings.Contains(out.String(), "hello") })
	if err := <-first; err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("the first Console() = %v, want that the BMC hung up", err)
	}
	r.console.FeedRX([]byte("still here"))
	poll(t, "output at the second console after the first has gone", func() bool {
		return strings.Contains(out.String(), "still here")
	})
	cancel()
	if err := <-second; err != nil {
		t.Errorf("the second Console() = %v, want nil", err)
	}
}

// A listener gets the output of the machine, sends nothing, and loses the console to any session that asks
// for it.
func TestListenGivesWay(t *testing.T) {
	testnet.Long(t)
	t.Parallel()
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

// A listener that waits for a silent BMC ends with its ctx, so that nobody who wants the console waits for
// it.
func TestListenToASilentBMCEndsWithCtx(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		d := &Driver{} // with the default timing
		done <- open(t, d,
			power.Target{
				Address: nobody(t), User: admin,
				Password: powertest.Password,
			}).(power.Console).Listen(ctx, io.Discard)
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
		reg.RegisterFunc(types.CommandActivatePayload, func(context.Context, *handlers.HandlerContext,
			[]byte,
		) ([]byte, types.CompletionCode, error) {
			return nil, codePayloadDisabled, nil
		})
	})
	err := r.openConsole(t, admin).Listen(t.Context(), io.Discard)
	var e *power.Error
	if !errors.Is(err, power.ErrUnsupported) || !errors.As(err, &e) ||
		!strings.Contains(e.Hint, "enable serial over LAN") {
		t.Errorf("Listen() = %v, want ErrUnsupported with a hint", err)
	}
}
