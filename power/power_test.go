package power_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

var quick = power.Pace{Poll: time.Millisecond, Resend: 20 * time.Millisecond, Silence: time.Second}

func TestOffAndOn(t *testing.T) {
	for _, c := range []struct {
		name   string
		quirks powertest.Quirks
	}{
		{"obedient", powertest.Quirks{}},
		{"slow status", powertest.SlowStatus},
		{"shared NIC", powertest.SharedNIC},
		{"strict", powertest.Strict},
		{"lossy", powertest.Lossy},
		{"all of it", powertest.Quirks{Lag: 3, Loses: 2, Deaf: 3, RefusesAgain: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			b := &powertest.BMC{Quirks: c.quirks}
			if err := power.On(ctx, b, quick); err != nil || !b.On() {
				t.Fatalf("On() = %v with the machine on = %v, want nil, true", err, b.On())
			}
			b.Misbehave(func(q *powertest.Quirks) { q.Loses = c.quirks.Loses })
			if err := power.Off(ctx, b, quick); err != nil || b.On() {
				t.Fatalf("Off() = %v with the machine on = %v, want nil, false", err, b.On())
			}
		})
	}
}

func TestOffWhenOffDoesNothing(t *testing.T) {
	b := &powertest.BMC{}
	if err := power.Off(t.Context(), b, quick); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"power", "power"}, b.Calls()); diff != "" {
		t.Errorf("calls of Off() when off (-want +got):\n%s", diff)
	}
}

// One old reading says off; the machine is on and must still be powered off.
func TestOneReadingIsNotBelieved(t *testing.T) {
	b := &powertest.BMC{Quirks: powertest.Quirks{Lag: 1}}
	b.Set(true)
	if err := power.Off(t.Context(), b, quick); err != nil || b.On() {
		t.Fatalf("Off() = %v with the machine on = %v, want nil, false", err, b.On())
	}
}

// The link of a shared NIC goes down when the machine powers itself off, so the BMC does not answer even the
// first reading.
func TestAMachineThatPowersItselfOff(t *testing.T) {
	b := &powertest.BMC{}
	b.Set(true)
	b.Quirks = powertest.SharedNIC
	b.Set(false)
	if err := power.AwaitOff(t.Context(), b, time.Hour, quick); err != nil {
		t.Errorf("AwaitOff() = %v, want nil", err)
	}
	for _, c := range b.Calls() {
		if c != "power" {
			t.Errorf("AwaitOff did %q", c)
		}
	}
}

func TestAMachineThatDoesNotPowerItselfOff(t *testing.T) {
	b := &powertest.BMC{}
	b.Set(true)
	began := time.Now()
	if err := power.AwaitOff(t.Context(), b, 20*time.Millisecond, quick); err != nil || b.On() {
		t.Errorf("AwaitOff() = %v with the machine on = %v, want nil, false", err, b.On())
	}
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("the machine was powered off after %s", took)
	}
}

func TestUntilGivesUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		quirks powertest.Quirks
		want   error
	}{
		{"silent from the start", powertest.Quirks{Silent: true}, power.ErrSilent},
		{"wrong password", powertest.Quirks{Refuses: true}, power.ErrRefused},
		{"never does it", powertest.Quirks{Loses: 1 << 30}, context.DeadlineExceeded},
		{"deaf for too long", powertest.Quirks{Deaf: 1 << 30}, power.ErrSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := time.Minute
			if c.want == context.DeadlineExceeded {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			p := quick
			p.Silence = 20 * time.Millisecond
			err := power.On(ctx, &powertest.BMC{Quirks: c.quirks}, p)
			if !errors.Is(err, c.want) {
				t.Errorf("On() = %v, want %v", err, c.want)
			}
			if late := ctx.Err() != nil; late != (c.want == context.DeadlineExceeded) {
				t.Errorf("On() used up its time: %v", late)
			}
		})
	}
}

func TestAssertBoot(t *testing.T) {
	pxe := power.Boot{Device: power.DevicePXE, EFI: true}
	forEver := power.Boot{Device: power.DevicePXE, EFI: true, Persistent: true}
	none := power.Boot{Device: power.DeviceNone}
	for _, c := range []struct {
		name         string
		quirks       powertest.Quirks
		want, stands power.Boot
		err          error
		calls        int
	}{
		{"kept", powertest.Quirks{}, pxe, pxe, nil, 2},
		{"lost once", powertest.Quirks{LosesBoot: 1}, pxe, pxe, nil, 4},
		{"lost twice", powertest.Quirks{LosesBoot: 2}, pxe, forEver, nil, 6},
		{"only persistent is kept", powertest.Forgetful, pxe, forEver, nil, 6},
		{"persistent lost once", powertest.Quirks{LosesBoot: 1}, forEver, forEver, nil, 4},
		{"never kept", powertest.Quirks{LosesBoot: 99}, pxe, none, power.ErrNotKept, 6},
		{"cannot be read", powertest.Mute, pxe, none, power.ErrNotKept, 6},
		{"cleared", powertest.Quirks{}, none, none, nil, 2},
		{"wrong password", powertest.Quirks{Refuses: true}, pxe, power.Boot{}, power.ErrRefused, 1},
		{"silent", powertest.Quirks{Silent: true}, pxe, power.Boot{}, power.ErrSilent, 3},
		{
			"unknown device",
			powertest.Quirks{},
			power.Boot{Device: power.DeviceOther},
			power.Boot{},
			power.ErrUnsupported, 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &powertest.BMC{Quirks: c.quirks}
			stands, err := power.AssertBoot(t.Context(), b, c.want, quick)
			if stands != c.stands || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("AssertBoot(%s) = %s, %v, want %s, %v", c.want, stands, err, c.stands, c.err)
			}
			if len(b.Calls()) != c.calls {
				t.Errorf("AssertBoot(%s) made %d calls, want %d: %q", c.want, len(b.Calls()), c.calls,
					b.Calls())
			}
		})
	}
}

func TestAssertBootEndsWithCtx(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // time enough for the first reading
	defer cancel()
	_, err := power.AssertBoot(ctx, &powertest.BMC{Quirks: powertest.Mute},
		power.Boot{Device: power.DevicePXE}, power.Pace{Poll: time.Minute})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, power.ErrNotKept) {
		t.Errorf("AssertBoot() = %v, want DeadlineExceeded and, before that, ErrNotKept", err)
	}
}

func TestSerializeKeepsConsole(t *testing.T) {
	if _, ok := power.Serialize(&powertest.BMC{}).(power.Console); ok {
		t.Error("Serialize of a BMC without a console has one")
	}
	line := &powertest.Line{}
	c, ok := power.Serialize(powertest.WithConsole{BMC: &powertest.BMC{}, Line: line}).(power.Console)
	if !ok {
		t.Fatal("Serialize of a BMC with a console has none")
	}
	if err := c.Console(t.Context(), strings.NewReader("hello"), io.Discard); err != nil ||
		line.Typed() != "hello" {
		t.Errorf("Console() = %v and the machine got %q, want nil and %q", err, line.Typed(), "hello")
	}
	line.Err = power.ErrUnsupported
	if err := c.Listen(t.Context(), io.Discard); !errors.Is(err, power.ErrUnsupported) {
		t.Errorf("Listen() = %v, want ErrUnsupported", err)
	}
}

func TestSerializeWaitsNoLongerThanCtx(t *testing.T) {
	busy, done := make(chan struct{}), make(chan struct{})
	defer close(done)
	b := power.Serialize(blocked{&powertest.BMC{}, busy, done})
	go func() { _, _ = b.Power(context.Background()) }()
	<-busy
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Do(ctx, power.ActOn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Do() while another call is going on = %v, want DeadlineExceeded", err)
	}
}

type blocked struct {
	power.BMC
	busy, done chan struct{}
}

func (b blocked) Power(context.Context) (bool, error) {
	close(b.busy)
	<-b.done
	return false, nil
}

func TestTargetKeepsItsSecret(t *testing.T) {
	target := power.Target{Address: "192.0.2.7", User: "admin", Password: "s3cret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, target); strings.Contains(s, "s3cret") {
			t.Errorf("Sprintf(%q) = %s", format, s)
		}
		if s := fmt.Sprintf(format, &target); strings.Contains(s, "s3cret") {
			t.Errorf("Sprintf(%q) of a pointer = %s", format, s)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"192.0.2.7", "192.0.2.7:623"},
		{"192.0.2.7:6230", "192.0.2.7:6230"},
		{"2001:db8::7", "[2001:db8::7]:623"},
		{"[2001:db8::7]", "[2001:db8::7]:623"},
		{"[2001:db8::7]:6230", "[2001:db8::7]:6230"},
		{"fe80::1%eth0", "[fe80::1%eth0]:623"},
		{"::ffff:192.0.2.7", "192.0.2.7:623"},
		{"", ""},
		{"bmc.example", ""},
		{"192.0.2.7:", ""},
		{"192.0.2.7:0", ""},
		{"192.0.2.7:70000", ""},
		{"0.0.0.0", ""},
		{"255.255.255.255", ""},
		{"239.1.2.3", ""},
		{"0.1.2.3", ""},
		{"240.0.0.1", ""},
		{"192.0.2.7/24", ""},
		{" 192.0.2.7", ""},
	} {
		got, err := power.ParseAddress(c.in)
		if s := got.String(); err == nil && s != c.want || (err != nil) != (c.want == "") {
			t.Errorf("ParseAddress(%q) = %s, %v, want %q", c.in, s, err, c.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for want, forms := range map[string][]string{
		"192.0.2.7": {
			"192.0.2.7", "192.0.2.7:623", "::ffff:192.0.2.7", "[::ffff:192.0.2.7]", "[::ffff:192.0.2.7]:623",
			"::ffff:c000:207",
		},
		"192.0.2.7:6230":     {"192.0.2.7:6230", "[::ffff:192.0.2.7]:6230"},
		"2001:db8::7":        {"2001:db8::7", "2001:DB8:0:0::7", "[2001:db8::7]", "[2001:db8::7]:623"},
		"[2001:db8::7]:6230": {"[2001:db8:0::7]:6230"},
	} {
		for _, form := range forms {
			if got, err := power.Canonical(form); err != nil || got != want {
				t.Errorf("Canonical(%q) = %q, %v, want %q", form, got, err, want)
			}
		}
	}
	if got, err := power.Canonical("bmc.example"); err == nil {
		t.Errorf("Canonical of a name = %q, want an error", got)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"192.0.2.7", "192.0.2.7:6230", "2001:db8::7", "[2001:db8::7]:6230",
		"[fe80::1%eth0]", "[[::1]]:1", "[]", ":623",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ap, err := power.ParseAddress(s)
		if err != nil {
			return
		}
		if !ap.IsValid() || ap.Port() == 0 {
			t.Errorf("ParseAddress(%q) = %v", s, ap)
		}
		if again, err := power.ParseAddress(ap.String()); err != nil || again != ap {
			t.Errorf("ParseAddress(%q) = %v, and of that %v, %v", s, ap, again, err)
		}
	})
}

func TestParseKg(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"text":                          "text",
		"0x00ff20":                      "\x00\xff ",
		"0x":                            "",
		"0x" + strings.Repeat("ab", 20): strings.Repeat("\xab", 20),
		strings.Repeat("k", 20):         strings.Repeat("k", 20),
		"0X00":                          "0X00", // text, as ipmitool has it
	} {
		if got, err := power.ParseKg(in); err != nil || got != want {
			t.Errorf("ParseKg(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"0x0", "0xhe", "0x00", "0x" + strings.Repeat("ab", 21),
		strings.Repeat("k", 21),
	} {
		if got, err := power.ParseKg(in); err == nil {
			t.Errorf("ParseKg(%q) = %q, want an error", in, got)
		}
	}
}
