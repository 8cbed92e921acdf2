package observe

import (
	"context"
	"log/slog"
)

// A line is a record for the handler that it was meant for.
type line struct {
	handler slog.Handler
	record  slog.Record
}

// Log makes of a logger one that never waits for what it writes to: who logs may hold a lock that all others
// need. what names the lines: "TFTP". stop lets what is queued be written, for a second at most; a line that
// comes later is lost.
func Log(log *slog.Logger, what string) (queued *slog.Logger, stop func()) {
	q := begin(log, "lines of "+what, "the log does not keep up with "+what, func(l line) {
		_ = l.handler.Handle(context.Background(), l.record)
	})
	return slog.New(queuedLines{log.Handler(), q}), q.Close
}

// queuedLines hands on what is logged in another goroutine.
type queuedLines struct {
	slog.Handler
	queue *Queue[line]
}

func (h queuedLines) Handle(_ context.Context, r slog.Record) error {
	h.queue.Put(line{h.Handler, r.Clone()})
	return nil
}

func (h queuedLines) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h queuedLines) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
