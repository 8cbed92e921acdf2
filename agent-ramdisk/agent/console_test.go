package agent

import (
	"errors"
	"strings"
	"testing"
)

func TestConsole(t *testing.T) {
	var serial, screen strings.Builder
	c := new(Console)
	term := c.Add("ttyS0", &serial)
	c.Add("tty0", &screen)
	log := c.Logger()
	log.Info("first", "key", 1)
	c.Mute(term, true)
	log.With("disk", "vda").Warn("second", "err", errors.New("two\nlines"))
	if strings.Contains(serial.String(), "second") {
		t.Error("a muted terminal shows a line")
	}
	c.Mute(term, false)
	const want = "pxagent: first key=1\npxagent: warn: second disk=vda err=two; lines\n"
	for name, got := range map[string]string{
		"serial": serial.String(), "screen": screen.String(),
		"ring": c.Tail(),
	} {
		if got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for range 2 * ringLines {
		log.Info("again")
	}
	if n := strings.Count(c.Tail(), "\n"); n != ringLines {
		t.Errorf("the ring holds %d lines, want %d", n, ringLines)
	}
}
