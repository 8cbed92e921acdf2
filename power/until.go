package power

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
)

// Pace is how patiently Off, On and AssertBoot go about it. A zero field means the
// default beside it, so Pace{} is right for real machines; tests shorten it.
type Pace struct {
	Poll    time.Duration // 1 s: between two readings; the first gaps are shorter, since most BMCs are quick
	Resend  time.Duration // 20 s: before the action is sent again, since some BMCs lose it
	Silence time.Duration // 60 s: a BMC that shares the machine's NIC is deaf that long after a power change
}

func (p Pace) withDefaults() Pace {
	return Pace{
		Poll:    cmp.Or(p.Poll, time.Second),
		Resend:  cmp.Or(p.Resend, 20*time.Second),
		Silence: cmp.Or(p.Silence, time.Minute),
	}
}

// Off powers the machine off and returns when two readings in a row say so: one alone may be
// old. A machine that is off already is left alone. It goes on until ctx ends, so give ctx a deadline; its cause
// is in the error.
func Off(ctx context.Context, b BMC, p Pace) error {
	return until(ctx, b, ActOff, false, 0, p.withDefaults())
}

// On is Off's counterpart.
func On(ctx context.Context, b BMC, p Pace) error {
	return until(ctx, b, ActOn, true, 0, p.withDefaults())
}

// AwaitOff is Off for a machine that was told to power itself off, and gets that long for it before the BMC
// does it. A BMC that shares the machine's NIC may be deaf from the first reading then, so silence counts
// from here, too.
func AwaitOff(ctx context.Context, b BMC, itself time.Duration, p Pace) error {
	return until(ctx, b, ActOff, false, itself, p.withDefaults())
}

// until acts when itself has passed, and again when that did not help.
func until(ctx context.Context, b BMC, act Action, want bool, itself time.Duration, p Pace) error {
	var (
		equal    int       // readings in a row that say what is wanted
		sent     time.Time // when the action was last sent
		times    int       // how often it was
		answered time.Time // when the BMC last told its power
		last     error     // what went wrong last, for the error when time is up
		gap      = p.Poll / 4
		began    = time.Now()
	)
	if itself > 0 {
		answered = began
	}
	for {
		on, err := b.Power(ctx)
		switch {
		case err == nil && on == want:
			if equal++; equal == 2 {
				return nil
			}
			answered = time.Now()
		case err == nil:
			equal, answered = 0, time.Now()
			if time.Since(began) >= itself && (sent.IsZero() || time.Since(sent) >= p.Resend) {
				sent = time.Now()
				times++
				// An error here is not the end: some BMCs refuse "off" while the machine
				// is on its way there. The next readings decide.
				if last = b.Do(ctx, act); last != nil && hopeless(last) {
					return last
				}
			}
		case ctx.Err() != nil:
			// said below
		case hopeless(err):
			return err
		case answered.IsZero(), time.Since(answered) > p.Silence:
			return err
		default:
			equal, last = 0, err
		}
		if sleep.For(ctx, gap) != nil {
			return late(context.Cause(ctx), act, want, times, last)
		}
		gap = min(gap*5/4, p.Poll)
	}
}

// late keeps both what ended the wait and what the BMC had said before.
func late(ended error, act Action, want bool, times int, last error) error {
	word := map[bool]string{true: "on", false: "off"}[want]
	if last != nil {
		return fmt.Errorf("power %s: told %d×, not seen to be %s: %w (before that: %w)", act, times, word,
			ended, last)
	}
	return fmt.Errorf("power %s: told %d×, not seen to be %s: %w", act, times, word, ended)
}

// AssertBoot sets the boot device and reads it back. When it was not kept, it sets it again; when that does
// not help and once was asked for, it sets it persistently. It returns what finally stands, which the caller
// compares (a persistent override must be taken back later), and an error that is ErrNotKept when that is not
// what was asked for. A BMC that took the device and refuses to tell it is doubt and no error: what is
// returned is Unread then.
func AssertBoot(ctx context.Context, b BMC, want Boot, p Pace) (Boot, error) {
	p = p.withDefaults()
	tries := []Boot{want, want}
	if !want.Persistent && want.Device != DeviceNone {
		tries = append(tries, Boot{Device: want.Device, Persistent: true, EFI: want.EFI})
	}
	var (
		stands Boot
		err    error
	)
	for i, try := range tries {
		if i > 0 {
			if sleep.For(ctx, p.Poll) != nil {
				return stands, fmt.Errorf("set boot device %s: %w (before that: %w)", want,
					context.Cause(ctx), err)
			}
		}
		if err = b.SetBoot(ctx, try); err != nil {
			if hopeless(err) {
				return stands, err
			}
			continue
		}
		if stands, err = b.Boot(ctx); err != nil {
			if errors.Is(err, ErrUnsupported) || errors.Is(err, ErrPrivilege) || errors.Is(err, ErrDeclined) {
				try.Unread = true
				return try, nil
			}
			if hopeless(err) {
				return stands, err
			}
			continue
		}
		if kept(want, stands) {
			return stands, nil
		}
		err = fmt.Errorf("boot device: asked for %q, reads back %q: %w", want, stands, ErrNotKept)
	}
	return stands, err
}

// kept says whether what stands makes the next boot the one that was asked for.
func kept(want, stands Boot) bool {
	if want.Device == DeviceNone {
		return stands.Device == DeviceNone
	}
	return stands.Device == want.Device && stands.EFI == want.EFI && (stands.Persistent || !want.Persistent)
}
