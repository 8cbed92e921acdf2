package powertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pxectl/pxectl/power"
)

// Quirks say how a BMC misbehaves. They count calls, not time, so that a test runs the same each time.
type Quirks struct {
	Lag          int  // how many readings after a change still give the state before it
	Loses        int  // how many power actions are accepted and not done
	Deaf         int  // how many calls after a change of power get no answer
	RefusesAgain bool // off when off and on when on are errors
	IgnoresSoft  bool // the operating system does not react to a soft power-off
	LosesBoot    int  // how many SetBoots are accepted and not kept
	OnlyForEver  bool // an override for one boot is accepted and not kept
	DropsBoot    bool // every override takes effect and reads back as none
	HidesBoot    bool // every override takes effect and reading it is refused
	Silent       bool // never answers
	Refuses      bool // rejects the password
}

// Quirks of BMCs that people have met.
var (
	// SlowStatus tells the old state for a while: MAAS PR 567 saw up to 30 s.
	SlowStatus = Quirks{Lag: 3}
	// SharedNIC loses its link when the machine's power changes: NC-SI, openbmc issue 2197.
	SharedNIC = Quirks{Deaf: 4}
	// Strict calls "off" an error when the machine is off: HPE and Redfish 409; Ironic and Cloudpods work
	// around it.
	Strict = Quirks{RefusesAgain: true, Lag: 2}
	// Lossy accepts a power-off and forgets it: Cloudpods sends it again every 20 s.
	Lossy = Quirks{Loses: 1}
	// Forgetful keeps only persistent overrides: Ironic's force_persistent_boot_device.
	Forgetful = Quirks{OnlyForEver: true}
	// Mute carries overrides out and reads back "none": OpenIPMI's ipmi_sim 2.0.33.
	Mute = Quirks{DropsBoot: true}
	// Secretive takes boot flags and answers a read with a completion code (0xC1, 0xCB, 0xFF).
	Secretive = Quirks{HidesBoot: true}
)

// BMC is a management controller and its machine. The zero value has no quirks and its machine is off.
type BMC struct {
	// Quirks are those that it begins with; [BMC.Misbehave] changes them once it is in use.
	Quirks Quirks
	// Booted, when set, is called at every start and restart of the machine, with the override that the
	// firmware found. An override for one boot is used up then. It runs inside the call that caused it and
	// must not call back.
	Booted func(power.Boot)
	// Stopped, when set, is called at every power-off.
	Stopped func()

	mu       sync.Mutex
	on       bool
	boot     power.Boot
	lag      int
	deaf     int
	restarts int
	calls    []string
}

var _ power.BMC = (*BMC)(nil)

// Misbehave changes the quirks of a BMC that is in use.
func (b *BMC) Misbehave(change func(*Quirks)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.Quirks)
}

// Calls lists the calls so far: "power", "off", "boot", "set boot pxe once efi", …
func (b *BMC) Calls() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.calls...)
}

// On says whether the machine is really on, whatever the BMC says.
func (b *BMC) On() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on
}

// Restarts counts cycles and resets.
func (b *BMC) Restarts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.restarts
}

// Override returns what the firmware would find at its next start.
func (b *BMC) Override() power.Boot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return none(b.boot)
}

// Set changes the power from the machine's side: a front button, an operating system that powers off.
func (b *BMC) Set(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.setLocked(on)
}

// Reboot restarts the machine from its own side, as an operating system does.
func (b *BMC) Reboot() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		b.startLocked()
	}
}

func (b *BMC) setLocked(on bool) {
	if on == b.on {
		return
	}
	b.on, b.lag, b.deaf = on, b.Quirks.Lag, b.Quirks.Deaf
	if on {
		b.startLocked()
	} else if b.Stopped != nil {
		b.Stopped()
	}
}

func (b *BMC) startLocked() {
	found := none(b.boot)
	if !b.boot.Persistent {
		b.boot = power.Boot{}
	}
	if b.Booted != nil {
		b.Booted(found)
	}
}

// beginLocked records a call and says whether it gets an answer.
func (b *BMC) beginLocked(ctx context.Context, call string) error {
	b.calls = append(b.calls, call)
	fail := func(err error, hint string) error {
		return &power.Error{Target: "192.0.2.1:623", Doing: call, Err: err, Hint: hint}
	}
	switch {
	case ctx.Err() != nil:
		return fail(ctx.Err(), "")
	case b.Quirks.Refuses:
		return fail(power.ErrRefused, "set the right password")
	case b.deaf > 0:
		b.deaf--
		return fail(power.ErrSilent, "check the cable")
	case b.Quirks.Silent:
		return fail(power.ErrSilent, "check the cable")
	}
	return nil
}

func (b *BMC) Power(ctx context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.beginLocked(ctx, "power"); err != nil {
		return false, err
	}
	if b.lag > 0 {
		b.lag--
		return !b.on, nil
	}
	return b.on, nil
}

func (b *BMC) Do(ctx context.Context, a power.Action) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.beginLocked(ctx, string(a)); err != nil {
		return err
	}
	if b.Quirks.Loses > 0 {
		b.Quirks.Loses--
		return nil
	}
	if b.Quirks.RefusesAgain && (a == power.ActOn && b.on || a == power.ActOff && !b.on) {
		return &power.Error{
			Target: "192.0.2.1:623",
			Doing:  string(a),
			Err:    errors.New("not possible in the machine's present state"),
		}
	}
	switch a {
	case power.ActOn, power.ActOff:
		b.setLocked(a == power.ActOn)
	case power.ActSoft:
		if !b.Quirks.IgnoresSoft {
			b.setLocked(false)
		}
	case power.ActCycle, power.ActReset:
		if b.on {
			b.restarts++
			b.startLocked()
		}
	default:
		return &power.Error{
			Target: "192.0.2.1:623",
			Doing:  "power",
			Err:    fmt.Errorf("action %q: %w", a, power.ErrUnsupported),
		}
	}
	return nil
}

func (b *BMC) Boot(ctx context.Context) (power.Boot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.beginLocked(ctx, "boot"); err != nil {
		return power.Boot{}, err
	}
	if b.Quirks.HidesBoot {
		return power.Boot{}, &power.Error{
			Target: "192.0.2.1:623", Doing: "read boot device", Err: power.ErrDeclined,
		}
	}
	if b.Quirks.DropsBoot {
		return none(power.Boot{}), nil
	}
	return none(b.boot), nil
}

func (b *BMC) SetBoot(ctx context.Context, boot power.Boot) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	call := "set boot " + boot.String()
	if err := b.beginLocked(ctx, call); err != nil {
		return err
	}
	switch boot.Device {
	case power.DeviceNone, power.DevicePXE, power.DeviceDisk, power.DeviceCDROM, power.DeviceBIOS:
	default:
		return &power.Error{Target: "192.0.2.1:623", Doing: call, Err: power.ErrUnsupported}
	}
	switch {
	case b.Quirks.LosesBoot > 0:
		b.Quirks.LosesBoot--
	case b.Quirks.OnlyForEver && !boot.Persistent && boot.Device != power.DeviceNone:
	default:
		b.boot = boot
	}
	return nil
}

func none(b power.Boot) power.Boot {
	if b.Device == "" || b.Device == power.DeviceNone {
		return power.Boot{Device: power.DeviceNone}
	}
	return b
}
