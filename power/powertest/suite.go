package powertest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/power"
)

// Password opens a Rig's BMC. WrongPassword is what Rig.WrongPassword opens it with.
const (
	Password      = "s3cret-Word"
	WrongPassword = "wr0ng-Word"
)

// A Rig controls and observes the machine behind a BMC without the driver.
type Rig struct {
	On       func() bool       // whether the machine is really on
	Set      func(on bool)     // the machine changes its power by itself
	Restarts func() int        // cycles and resets so far
	Override func() power.Boot // the override that the firmware would find

	WrongPassword func() power.BMC // the same BMC, opened with WrongPassword
	Silent        func() power.BMC // an address where nobody answers

	// LosesBootFlags says why boot flags cannot be read back from this BMC; "" when they can. When they
	// cannot, the suite compares only the device, by Override.
	LosesBootFlags string
}

// Fast is a Pace for BMCs that answer at once.
var Fast = power.Pace{Poll: 2 * time.Millisecond, Resend: 500 * time.Millisecond, Silence: 5 * time.Second}

// Run runs the suite. newBMC makes a fresh BMC that lives as long as t, with its machine off and no boot
// override.
func Run(t *testing.T, newBMC func(t testing.TB) (power.BMC, Rig)) {
	for _, c := range []struct {
		name string
		test func(*testing.T, power.BMC, Rig)
	}{
		{"status follows the machine", statusFollows},
		{"on and off", onAndOff},
		{"off when off, on when on", again},
		{"cycle", func(t *testing.T, b power.BMC, r Rig) { restart(t, b, r, power.ActCycle) }},
		{"reset", func(t *testing.T, b power.BMC, r Rig) { restart(t, b, r, power.ActReset) }},
		{"soft", soft},
		{"boot device", bootDevice},
		{"what it does not know", unsupported},
		{"wrong password", wrongPassword},
		{"silent", silent},
		{"deadline", deadline},
		{"cancel", cancelled},
		{"many conversations", many},
		{"many goroutines", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, rig := newBMC(t)
			c.test(t, b, rig)
		})
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls, since a machine takes its time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func reads(ctx context.Context, t testing.TB, b power.BMC, want bool) {
	t.Helper()
	eventually(t, map[bool]string{true: "Power() = on", false: "Power() = off"}[want], func() bool {
		on, err := b.Power(ctx)
		if err != nil {
			t.Fatalf("Power() = %v", err)
		}
		return on == want
	})
}

func statusFollows(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 20*time.Second)
	for _, on := range []bool{false, true, false} {
		rig.Set(on)
		reads(ctx, t, b, on)
	}
}

func onAndOff(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 20*time.Second)
	for range 2 {
		if err := power.On(ctx, b, Fast); err != nil || !rig.On() {
			t.Fatalf("On() = %v with the machine on = %v, want nil and true", err, rig.On())
		}
		if err := power.Off(ctx, b, Fast); err != nil || rig.On() {
			t.Fatalf("Off() = %v with the machine on = %v, want nil and false", err, rig.On())
		}
	}
}

func again(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 20*time.Second)
	if err := b.Do(ctx, power.ActOff); err != nil {
		t.Errorf("Do(off) when off = %v, want nil", err)
	}
	rig.Set(true)
	reads(ctx, t, b, true)
	if err := b.Do(ctx, power.ActOn); err != nil {
		t.Errorf("Do(on) when on = %v, want nil", err)
	}
	if !rig.On() || rig.Restarts() != 0 {
		t.Errorf("after Do(on) when on: on = %v, %d restarts, want true, 0", rig.On(), rig.Restarts())
	}
}

func restart(t *testing.T, b power.BMC, rig Rig, a power.Action) {
	ctx := within(t, 20*time.Second)
	rig.Set(true)
	reads(ctx, t, b, true)
	if err := b.Do(ctx, a); err != nil {
		t.Fatalf("Do(%s) = %v", a, err)
	}
	eventually(t, string(a)+" restarts the machine", func() bool { return rig.Restarts() > 0 })
	if n := rig.Restarts(); n != 1 || !rig.On() {
		t.Errorf("after Do(%s): %d restarts, on = %v, want 1, true", a, n, rig.On())
	}
}

func soft(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 20*time.Second)
	rig.Set(true)
	reads(ctx, t, b, true)
	if err := b.Do(ctx, power.ActSoft); err != nil {
		t.Fatalf("Do(soft) = %v", err)
	}
	eventually(t, "soft powers the machine off", func() bool { return !rig.On() })
	reads(ctx, t, b, false)
}

func bootDevice(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 30*time.Second)
	var wants []power.Boot
	for _, d := range []power.Device{power.DevicePXE, power.DeviceDisk, power.DeviceCDROM, power.DeviceBIOS} {
		for _, persistent := range []bool{false, true} {
			for _, efi := range []bool{false, true} {
				wants = append(wants, power.Boot{Device: d, Persistent: persistent, EFI: efi})
			}
		}
	}
	for _, want := range append(wants, power.Boot{Device: power.DeviceNone}) {
		if rig.LosesBootFlags != "" {
			if err := b.SetBoot(ctx, want); err != nil {
				t.Errorf("SetBoot(%s) = %v", want, err)
			}
			if got := rig.Override(); got.Device != want.Device {
				t.Errorf("after SetBoot(%s) the machine boots %s", want, got.Device)
			}
			continue
		}
		stands, err := power.AssertBoot(ctx, b, want, Fast)
		if err != nil || stands != want {
			t.Errorf("AssertBoot(%s) = %s, %v, want %s", want, stands, err, want)
		}
		if got := rig.Override(); got != want {
			t.Errorf("after SetBoot(%s) the machine boots %s", want, got)
		}
	}
	if rig.LosesBootFlags != "" {
		t.Logf("boot flags were not read back: %s", rig.LosesBootFlags)
	}
}

func unsupported(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 10*time.Second)
	if err := b.Do(ctx, "explode"); !errors.Is(err, power.ErrUnsupported) {
		t.Errorf("Do(explode) = %v, want ErrUnsupported", err)
	}
	if err := b.SetBoot(ctx, power.Boot{Device: power.DeviceOther}); !errors.Is(err, power.ErrUnsupported) {
		t.Errorf("SetBoot(other) = %v, want ErrUnsupported", err)
	}
	if rig.On() {
		t.Error("the machine is on now")
	}
}

// helpful checks that an error tells a person what to do, and no password.
func helpful(t *testing.T, err error) {
	t.Helper()
	var e *power.Error
	if !errors.As(err, &e) || e.Hint == "" || e.Target == "" || e.Doing == "" {
		t.Errorf("%#v: want a *power.Error with target, what was being done, and a hint", err)
		return
	}
	for _, secret := range []string{Password, WrongPassword} {
		if strings.Contains(e.Error()+e.Hint, secret) {
			t.Errorf("the error contains the password: %v (%s)", e, e.Hint)
		}
	}
}

func wrongPassword(t *testing.T, b power.BMC, rig Rig) {
	ctx := within(t, 20*time.Second)
	wrong := rig.WrongPassword()
	for range 3 { // the third may be refused without asking the BMC
		_, err := wrong.Power(ctx)
		if !errors.Is(err, power.ErrRefused) {
			t.Fatalf("Power() with a wrong password = %v, want ErrRefused", err)
		}
		helpful(t, err)
	}
	if err := wrong.Do(ctx, power.ActOn); !errors.Is(err, power.ErrRefused) || rig.On() {
		t.Errorf("Do(on) with a wrong password = %v, machine on = %v, want ErrRefused, false", err, rig.On())
	}
	if _, err := b.Power(ctx); err != nil {
		t.Errorf("Power() with the right password afterwards = %v", err)
	}
}

func silent(t *testing.T, _ power.BMC, rig Rig) {
	start := time.Now()
	_, err := rig.Silent().Power(within(t, 30*time.Second))
	if took := time.Since(start); !errors.Is(err, power.ErrSilent) || took > 10*time.Second {
		t.Errorf("Power() where nobody answers = %v after %s, want ErrSilent within 10 s", err, took)
	}
	helpful(t, err)
}

func deadline(t *testing.T, b power.BMC, rig Rig) {
	start := time.Now()
	err := power.Off(within(t, 150*time.Millisecond), stubborn{b}, Fast)
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 3*time.Second {
		t.Errorf("Off() of a machine that stays on = %v after %s, want DeadlineExceeded soon after 150 ms",
			err, took)
	}
	start = time.Now()
	_, err = rig.Silent().Power(within(t, 50*time.Millisecond))
	if took := time.Since(start); !(errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, power.ErrSilent)) || took > 2*time.Second {
		t.Errorf("Power() with a deadline of 50 ms where nobody answers = %v after %s, "+
			"want DeadlineExceeded soon", err, took)
	}
}

// stubborn is a machine that is on whatever one does.
type stubborn struct{ power.BMC }

func (s stubborn) Power(ctx context.Context) (bool, error) {
	_, err := s.BMC.Power(ctx)
	return true, err
}

func cancelled(t *testing.T, b power.BMC, rig Rig) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Do(ctx, power.ActOn); !errors.Is(err, context.Canceled) || rig.On() {
		t.Errorf("Do(on) with a cancelled ctx = %v, machine on = %v, want Canceled, false", err, rig.On())
	}
}

// many finds sessions that are not closed: a BMC has room for a handful.
func many(t *testing.T, b power.BMC, _ Rig) {
	ctx := within(t, 60*time.Second)
	for i := range 100 {
		if _, err := b.Power(ctx); err != nil {
			t.Fatalf("Power(), conversation %d = %v", i+1, err)
		}
	}
}

func concurrent(t *testing.T, b power.BMC, _ Rig) {
	ctx := within(t, 60*time.Second)
	b = power.Serialize(b)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := b.Power(ctx); err != nil {
					t.Errorf("Power() from several goroutines = %v", err)
				}
			}
		})
	}
	wg.Wait()
}
