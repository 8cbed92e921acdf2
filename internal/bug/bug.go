// Package bug turns a panic into a line of the log or an error, so that one bug of ours, or of a library,
// costs one goroutine's work and not the whole program.
package bug

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Recover ends a goroutine that panics, and logs the panic with its stack and what was being done. It is the
// first thing that a goroutine defers: defer bug.Recover(log, "follow the console"). A nil log is slog's
// default. about gives more attributes for the log; it is called only after a panic.
func Recover(log *slog.Logger, doing string, about ...func() []any) {
	if r := recover(); r != nil {
		report(log, doing, r, about)
	}
}

// Return logs a panic as Recover does and turns it into the error that the function returns: defer
// bug.Return(log, "read the packet", &err).
func Return(log *slog.Logger, doing string, err *error, about ...func() []any) {
	if r := recover(); r != nil {
		report(log, doing, r, about)
		*err = fmt.Errorf("%s: a bug of ours, the log has more: %v", doing, r)
	}
}

// Recovering is f with Recover, for what calls it in a goroutine of its own: time.AfterFunc and
// context.AfterFunc.
func Recovering(log *slog.Logger, doing string, f func()) func() {
	return func() {
		defer Recover(log, doing)
		f()
	}
}

func report(log *slog.Logger, doing string, r any, about []func() []any) {
	if log == nil {
		log = slog.Default()
	}
	attrs := []any{"panic", r, "stack", string(debug.Stack())}
	for _, f := range about {
		attrs = append(attrs, f()...)
	}
	log.Error(doing+": bug", attrs...)
}
