package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/inventory"
)

const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitTimedOut = 4
)

// usageError is an error in the arguments or flags of a command.
type usageError struct {
	error
	hint string
}

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{error: fmt.Errorf(format, args...)}
}

// machineErrors are the errors of several machines; each is reported by itself.
type machineErrors []error

func (s machineErrors) Error() string {
	texts := make([]string, len(s))
	for i, err := range s {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// joinErrors joins the errors that are not nil. It says only once what all of them say, such as that the
// appliance is away.
func joinErrors(errs []error) error {
	said := map[string]bool{}
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool {
		if err == nil || said[err.Error()] {
			return true
		}
		said[err.Error()] = true
		return false
	})
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return machineErrors(errs)
}

// exitCode turns errors into exit codes. No other function does.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if all, ok := errors.AsType[machineErrors](err); ok {
		code := exitCode(all[0])
		for _, err := range all[1:] {
			if exitCode(err) != code {
				return exitFailed
			}
		}
		return code
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitTimedOut
	}
	if p, ok := errors.AsType[*inventory.Problem](err); ok {
		switch p.Code {
		case inventory.CodeNotFound:
			return exitNotFound
		case inventory.CodeTimeout:
			return exitTimedOut
		}
	}
	return exitFailed
}

// report prints what went wrong and what to do next.
func report(w io.Writer, err error) {
	if err == nil {
		return
	}
	if _, seen := errors.AsType[reported](err); seen {
		return
	}
	if all, ok := errors.AsType[machineErrors](err); ok {
		for _, err := range all {
			report(w, err)
		}
		return
	}
	text, hint := err.Error(), hintOf(err)
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	for i, line := range strings.Split(text, "\n") { // a configuration has a line per mistake
		if i == 0 {
			line = "pxectl: " + line
		}
		fmt.Fprintln(w, clean(line))
	}
	if hint != "" {
		fmt.Fprintln(w, "  hint:", clean(hint))
	}
}

// hinted gives an error that has no hint this one. Whoever interrupted us needs none.
func hinted(err error, hint string) error {
	if err == nil || hintOf(err) != "" || errors.Is(err, context.Canceled) {
		return err
	}
	return &inventory.Problem{Code: inventory.CodeInternal, Detail: err.Error(), Hint: hint, Err: err}
}

func hintOf(err error) string {
	if p, ok := errors.AsType[*inventory.Problem](err); ok {
		return p.Hint
	}
	for e, ok := errors.AsType[usageError](err); ok; e, ok = errors.AsType[usageError](e.error) {
		if e.hint != "" {
			return e.hint
		}
	}
	return ""
}
