package ipmi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

// recorder answers a command with completion codes and keeps what it was sent.
type recorder struct {
	mu   sync.Mutex
	got  []string
	code func(n int, data []byte) types.CompletionCode
}

func (r *recorder) handle(
	_ context.Context, _ *handlers.HandlerContext, data []byte,
) ([]byte, types.CompletionCode, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, fmt.Sprintf("%x", data))
	return []byte{0x01, 0, 0}, r.code(len(r.got), data), nil // the body is a chassis status: on
}

func (r *recorder) sent() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func (r *recorder) open(t testing.TB, command types.Command) power.BMC {
	return newRackWith(t, "127.0.0.1:0",
		func(reg *handlers.Registry) { reg.RegisterFunc(command, r.handle) }).
		open(t, quick(), powertest.Password)
}

func TestBusyIsAskedAgain(t *testing.T) {
	for _, code := range []types.CompletionCode{0xC0, 0xC3, 0xC4, 0xD2} {
		r := &recorder{code: func(n int, _ []byte) types.CompletionCode {
			if n < 3 {
				return code
			}
			return 0
		}}
		on, err := r.open(t, types.CommandGetChassisStatus).Power(t.Context())
		if err != nil || !on {
			t.Errorf("Power() with code %#02x twice = %v, %v, want true", uint8(code), on, err)
		}
	}
	r := &recorder{code: func(int, []byte) types.CompletionCode { return 0xC0 }}
	_, err := r.open(t, types.CommandGetChassisStatus).Power(t.Context())
	var e *power.Error
	if !errors.Is(err, power.ErrBusy) || !errors.As(err, &e) || e.Hint == "" || len(r.sent()) != busyTries {
		t.Errorf("Power() with code 0xc0 for ever = %v after %d tries, want ErrBusy with a hint after %d",
			err, len(r.sent()), busyTries)
	}
}

func TestBusyEndsWithCtx(t *testing.T) {
	t.Parallel()
	r := &recorder{code: func(int, []byte) types.CompletionCode { return 0xC0 }}
	rack := newRackWith(t, "127.0.0.1:0", func(reg *handlers.Registry) {
		reg.RegisterFunc(types.CommandGetChassisStatus, r.handle)
	})
	// Two seconds are enough for a session and the first answer.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := rack.open(t, &Driver{Backoff: time.Minute}, powertest.Password).Power(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, power.ErrBusy) {
		t.Errorf("Power() of a busy BMC = %v, want DeadlineExceeded and, before that, ErrBusy", err)
	}
}

func TestCodesOfChassisControl(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code types.CompletionCode
		act  power.Action
		want func(error) bool
	}{
		{0, power.ActOn, func(err error) bool { return err == nil }},
		{0xC1, power.ActReset, func(err error) bool { return errors.Is(err, power.ErrUnsupported) }},
		{0xD4, power.ActOff, func(err error) bool { return errors.Is(err, power.ErrPrivilege) }},
		{
			0xD5, power.ActCycle,
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "present state") },
		},
	} {
		r := &recorder{code: func(int, []byte) types.CompletionCode { return c.code }}
		rack := newRackWith(t, "127.0.0.1:0", func(reg *handlers.Registry) {
			reg.RegisterFunc(types.CommandChassisControl, r.handle)
		})
		rack.chassis.set(c.act == power.ActOff)
		err := rack.open(t, quick(), powertest.Password).Do(t.Context(), c.act)
		if !c.want(err) {
			t.Errorf("Do(%s) with code %#02x = %v", c.act, uint8(c.code), err)
		}
	}
}

// The order and the bytes of setting a boot device, with a BMC that has every parameter and with
// one that has only the flags.
func TestSetBootSequence(t *testing.T) {
	const flags = "05a004000000"
	for _, c := range []struct {
		name string
		code func(n int, data []byte) types.CompletionCode
		want []string
		err  error
	}{
		{
			"every parameter", func(int, []byte) types.CompletionCode { return 0 },
			[]string{"0001", "0308", "040101", flags, "0002", "0000"},
			nil,
		},
		{
			"only the flags", func(_ int, data []byte) types.CompletionCode {
				if data[0] != paramBootFlags {
					return 0x80
				}
				return 0
			},
			[]string{"0001", "0308", "040101", flags},
			nil,
		},
		{
			"another client died in the middle", func(n int, data []byte) types.CompletionCode {
				if data[0] == paramSetInProgress && data[1] == 1 && n < 3 {
					return 0x81
				}
				return 0
			},
			[]string{"0001", "0001", "0000", "0001", "0308", "040101", flags, "0002", "0000"},
			nil,
		},
		{
			"another client was in the middle", func(n int, _ []byte) types.CompletionCode {
				if n == 1 {
					return 0x81
				}
				return 0
			},
			[]string{"0001", "0001", "0308", "040101", flags, "0002", "0000"},
			nil,
		},
		{
			"in the middle for ever", func(_ int, data []byte) types.CompletionCode {
				if data[0] == paramSetInProgress {
					return 0x81
				}
				return 0
			},
			[]string{"0001", "0001", "0000", "0308", "040101", flags},
			nil,
		},
		{
			"no flags", func(_ int, data []byte) types.CompletionCode {
				if data[0] == paramBootFlags {
					return 0x80
				}
				return 0
			},
			[]string{"0001", "0308", "040101", flags, "0000"},
			power.ErrUnsupported,
		},
	} {
		r := &recorder{code: c.code}
		err := r.open(t, types.CommandSetSystemBootOptions).SetBoot(t.Context(), power.Boot{
			Device: power.DevicePXE, EFI: true,
		})
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: SetBoot() = %v, want %v", c.name, err, c.err)
		}
		if diff := cmp.Diff(c.want, r.sent()); diff != "" {
			t.Errorf("%s: what was sent (-want +got):\n%s", c.name, diff)
		}
	}
}

// A BMC that accepts boot flags and refuses to read them back is set once; that is no error, and the result
// is Unread.
func TestARefusedReadIsDoubt(t *testing.T) {
	want := power.Boot{Device: power.DevicePXE, EFI: true}
	for _, code := range []types.CompletionCode{0x80, 0xC1, 0xCB, 0xD4, 0xFF} {
		r := &recorder{code: func(int, []byte) types.CompletionCode { return code }}
		b := r.open(t, types.CommandGetSystemBootOptions)
		stands, err := power.AssertBoot(t.Context(), b, want, powertest.Fast)
		if err != nil || !stands.Unread || stands.Device != want.Device || stands.Persistent ||
			len(r.sent()) != 1 {
			t.Errorf("AssertBoot with code %#02x on the read = %+v, %v after %d reads; "+
				"want pxe once, unread, after 1", uint8(code), stands, err, len(r.sent()))
		}
	}
}
