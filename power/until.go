package power

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
)

// Pace is the timing of Off, On, AwaitOff and AssertBoot. A zero field means the default beside it, so Pace{}
// is right for real machines; tests shorten it.
type Pace struct {
	Poll    time.Duration // 1 s: between two readings; the first gaps are shorter, since most BMCs are quick
	Resend  time.Duration // 20 s: before the action is sent again, since some BMCs lose it
	Silence time.Duration // 60 s: how long a BMC on the machine's NIC may be silent after a power change
}

func (p Pace) withDefaults() Pace {
	return Pace{
		Poll:    cmp.Or(p.Poll, time.Second),
		Resend:  cmp.Or(p.Resend, 20*time.Second),
		Silence: cmp.Or(p.Silence, time.Minute),
	}
}

// Off powers the machine off and returns when two readings in a row say so, because one alone may be old. It
// sends no action to a machine that is off already. It goes on until ctx ends, so give ctx a deadline; the
// error wraps the cause of ctx.
func Off(ctx context.Context, b BMC, p Pace) error {
	return until(ctx, b, ActOff, false, 0, p.withDefaults())
}

// On powers the machine on, as Off powers it off.
func On(ctx context.Context, b BMC, p Pace) error {
	return until(ctx, b, ActOn, true, 0, p.withDefaults())
}

// AwaitOff is Off for a machine that was told to power itself off: the BMC powers it off only after the time
// itself. A BMC that shares the machine's NIC may be silent from the first reading on, so AwaitOff bears
// p.Silence from its beginning.
func AwaitOff(ctx context.Context, b BMC, itself time.Duration, p Pace) error {
	return until(ctx, b, ActOff, false, itself, p.withDefaults())
}

// until sends act when the time itself has passed, and again each p.Resend, until two readings in a row are
// want.
func until(ctx context.Context, b BMC, act Action, want bool, itself time.Duration, p Pace) error {
	var (
		equal    int       // readings in a row that say what is wanted
		sent     time.Time // when the action was last sent
		times    int       // how often it was sent
		answered time.Time // when the BMC last gave a reading
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
			// the error is made below
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

// late makes the error of a wait that ended. It wraps what ended the wait and the last error of the BMC.
func late(ended error, act Action, want bool, times int, last error) error {
	word := map[bool]string{true: "on", false: "off"}[want]
	if last != nil {
		return fmt.Errorf("power %s: told %d×, not seen to be %s: %w (before that: %w)", act, times, word,
			ended, last)
	}
	return fmt.Errorf("power %s: told %d×, not seen to be %s: %w", act, times, word, ended)
}

// AssertBoot sets the boot device and reads it back. When the BMC did not keep it, AssertBoot sets it once
// more, and then, if want is for one boot, persistently. It returns the override that the BMC has in the end.
// The caller compares that with want, because a persistent override must be taken back later. The error is
// ErrNotKept when the BMC has another override. A BMC that accepts the device and refuses to read it back is
// no error: the result is Unread then.
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

// kept says whether the override that stands makes the next boot the one that was asked for.
func kept(want, stands Boot) bool {
	if want.Device == DeviceNone {
		return stands.Device == DeviceNone
	}
	return stands.Device == want.Device && stands.EFI == want.EFI && (stands.Persistent || !want.Persistent)
}
