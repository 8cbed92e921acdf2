package power

import (
	"context"
	"io"
)

// An Action is one thing that a BMC does to a machine's power.
type Action string

// What can be done to the power.
const (
	ActOn    Action = "on"
	ActOff   Action = "off"   // at once, like holding the button
	ActSoft  Action = "soft"  // asks the operating system; it may refuse or take minutes
	ActCycle Action = "cycle" // off, a pause, on; an error on many BMCs when the machine is off
	ActReset Action = "reset" // the reset line; power stays on
)

// A Device is what the firmware boots from.
type Device string

// What the firmware can boot from.
const (
	DeviceNone  Device = "none" // no override: the firmware's own order
	DevicePXE   Device = "pxe"
	DeviceDisk  Device = "disk"
	DeviceCDROM Device = "cdrom"
	DeviceBIOS  Device = "bios"  // the setup screen
	DeviceOther Device = "other" // only read, never set: a device that is none of the others
)

// Boot is the override of the boot order that a BMC holds for the firmware.
type Boot struct {
	Device     Device
	Persistent bool // for every boot, not only the next one
	EFI        bool // for UEFI; without it some machines fall back to BIOS emulation
	// Unread says that the BMC accepted this override and refuses to read it back.
	Unread bool
}

func (b Boot) String() string {
	s := string(b.Device)
	if b.Device != DeviceNone {
		s += map[bool]string{false: " once", true: " persistent"}[b.Persistent]
		if b.EFI {
			s += " efi"
		}
	}
	if b.Unread {
		s += " (the BMC refuses to tell what stands)"
	}
	return s
}

// A BMC is one management controller. Each call opens a session with it and closes the session. One goroutine
// may use it at a time; Serialize is for more.
//
// Errors are *Error, and errors.Is tells ErrSilent, ErrRefused, ErrPrivilege, ErrUnsupported, ErrDeclined,
// ErrBusy, ErrTaken and the context's errors apart.
type BMC interface {
	// Power returns the power as the BMC reports it, which may lag behind the machine by half a minute.
	Power(ctx context.Context) (on bool, err error)
	// Do returns when the BMC has accepted the action, not when it is done. Off when
	// off and on when on are not errors.
	Do(ctx context.Context, a Action) error
	Boot(ctx context.Context) (Boot, error)
	SetBoot(ctx context.Context, b Boot) error
}

// A Console is a BMC that also has a serial console, which one session at a time can have.
type Console interface {
	// Console copies both ways until ctx ends (nil), in returns io.EOF (nil) or the BMC hangs up (an error).
	// It takes over a console that another session has.
	Console(ctx context.Context, in io.Reader, out io.Writer) error
	// Listen copies what the machine says to out until ctx ends (nil) or the BMC hangs up (an error). When
	// another session has the console, Listen returns ErrTaken.
	Listen(ctx context.Context, out io.Writer) error
}

// A Target says where a BMC is and who we are to it.
type Target struct {
	// Address is "192.0.2.7", "192.0.2.7:6230", "2001:db8::7" or "[2001:db8::7]:6230". The port is 623 unless
	// it is given.
	Address  string
	User     string
	Password string
	// Kg is the BMC's own key (K_g, IPMI 2.0 section 13.33), up to 20 bytes. Most BMCs have none: "".
	Kg string
}

// String leaves the password out, so that a Target can be printed.
func (t Target) String() string { return t.User + "@" + t.Address }

// GoString keeps %#v from printing the password.
func (t Target) GoString() string { return "power.Target{" + t.String() + "}" }

// An Opener makes the BMC of a target. It checks what it was given and sends nothing.
type Opener func(Target) (BMC, error)
