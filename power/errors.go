package power

import (
	"context"
	"errors"
)

// Errors of a BMC. An Error wraps one of them, or another one, such as an error of the network.
var (
	ErrSilent      = errors.New("no answer")
	ErrRefused     = errors.New("user or password rejected")
	ErrPrivilege   = errors.New("the user may not do this")
	ErrUnsupported = errors.New("not supported by this BMC")
	ErrDeclined    = errors.New("refused")         // the BMC's completion code gives no reason
	ErrBusy        = errors.New("the BMC is busy") // after several tries
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

// hopeless says whether the same request would fail again.
func hopeless(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrPrivilege) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, context.Canceled)
}
