package observe

import (
	"io"
	"log/slog"
	"strings"
	"testing"
)

// A log that hangs holds up nobody who logs, and nobody who puts a value into a queue that is full.
func TestHangingLog(t *testing.T) {
	read, write := io.Pipe() // nobody reads it yet
	log, stop := Log(slog.New(slog.NewTextHandler(write, nil)), "numbers")
	q := New(log, "numbers", func(int) {})
	for n := range 2 * waiting {
		log.With("mac", "52:54:00:00:00:01").WithGroup("g").Info("numbers: one", "n", n)
		q.Put(n)
	}
	q.Close()
	written := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(read)
		written <- string(all)
	}()
	stop()
	log.Info("too late")
	write.Close()
	all := <-written
	for _, want := range []string{
		`msg="numbers: one" mac=52:54:00:00:00:01 g.n=0`, "g.n=4000",
		"the log does not keep up with numbers",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(all, "too late") {
		t.Error("the log has a line that came after its end")
	}
}
