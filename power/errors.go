package power

import (
	"context"
	"errors"
)

// What a BMC can fail with; an Error holds one of them, or what the network said.
var (
	ErrSilent      = errors.New("no answer")
	ErrRefused     = errors.New("user or password rejected")
	ErrPrivilege   = errors.New("the user may not do this")
	ErrUnsupported = errors.New("not supported by this BMC")
	ErrDeclined    = errors.New("refused")         // answered with a code that says no more than that
	ErrBusy        = errors.New("the BMC is busy") // it answered so each time that we asked
	ErrTaken       = errors.New("another session has the serial console")
	// ErrNotKept: the BMC accepted a boot device and reads back another one. Some BMCs
	// still do what they were told, so the caller may go on and let the proof decide.
	ErrNotKept = errors.New("the BMC does not keep the boot device")
)

// An Error says what was being done, to which BMC, and what to do next.
type Error struct {
	Target string // address and port
	Doing  string // "power off", "read boot device"
	Err    error
	Hint   string // the next move, for a person; may be empty
}

func (e *Error) Error() string { return e.Doing + " " + e.Target + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// hopeless says that asking again with the same words cannot help.
func hopeless(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrPrivilege) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, context.Canceled)
}
