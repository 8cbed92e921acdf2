package agent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// A Console prints the agent's log on every terminal of the kernel, and keeps the last lines for a failed
// result.
type Console struct {
	mu    sync.Mutex
	terms []*Terminal
	ring  []string
}

// A Terminal is one output of a Console.
type Terminal struct {
	Name   string
	w      io.Writer
	mute   bool
	missed []byte // lines while muted
}

const (
	ringLines = 200
	maxMissed = 16 << 10
)

// Add adds a terminal.
func (c *Console) Add(name string, w io.Writer) *Terminal {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &Terminal{Name: name, w: w}
	c.terms = append(c.terms, t)
	return t
}

// Mute holds back lines while a person has a shell on the terminal, and prints them afterwards.
func (c *Console) Mute(t *Terminal, mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.mute = mute
	if !mute {
		_, _ = t.w.Write(t.missed)
		t.missed = nil
	}
}

// Write takes whole lines.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		c.ring = append(c.ring, line)
	}
	if extra := len(c.ring) - ringLines; extra > 0 {
		c.ring = append([]string(nil), c.ring[extra:]...)
	}
	for _, t := range c.terms {
		switch {
		case !t.mute:
			_, _ = t.w.Write(p) // a lost terminal must not stop the others
		case len(t.missed) < maxMissed:
			t.missed = append(t.missed, p...)
		}
	}
	return len(p), nil
}

// Tail returns the last lines.
func (c *Console) Tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.ring, "")
}

// Logger writes "pxagent: message key=value" lines without time and level: people read them, and the serial
// log has its own clock.
func (c *Console) Logger() *slog.Logger { return slog.New(lines{w: c}) }

type lines struct {
	w     io.Writer
	attrs []slog.Attr
}

func (l lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l lines) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString("pxagent: ")
	if r.Level >= slog.LevelWarn {
		b.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	b.WriteString(r.Message)
	write := func(a slog.Attr) bool {
		b.WriteString(" " + a.Key + "=" + a.Value.String())
		return true
	}
	for _, a := range l.attrs {
		write(a)
	}
	r.Attrs(write)
	line := strings.ReplaceAll(strings.TrimRight(b.String(), "\n"), "\n", "; ")
	_, err := io.WriteString(l.w, line+"\n")
	return err
}

func (l lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lines{l.w, append(append([]slog.Attr(nil), l.attrs...), attrs...)}
}

func (l lines) WithGroup(string) slog.Handler { return l }
