// Package bug turns a panic into a line of the log or an error, so that one bug of ours, or of a library,
// costs one goroutine's work and not the whole program.
package bug

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Recover is deferred first in a goroutine, by itself: defer bug.Recover(log, "follow the console"). A panic
// is logged with what was being done and the stack, and the goroutine ends. A nil log is slog's default.
func Recover(log *slog.Logger, doing string) {
	if r := recover(); r != nil {
		report(log, doing, r)
	}
}

// Return is deferred by a function whose error somebody waits for: defer bug.Return(log, "read the packet",
// &err). A panic is logged as Recover does, and is the error.
func Return(log *slog.Logger, doing string, err *error) {
	if r := recover(); r != nil {
		report(log, doing, r)
		*err = fmt.Errorf("%s: a bug of ours, the log has more: %v", doing, r)
	}
}

func report(log *slog.Logger, doing string, r any) {
	if log == nil {
		log = slog.Default()
	}
	log.Error(doing+": bug", "panic", r, "stack", string(debug.Stack()))
}
