package bug

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestRecover(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var all sync.WaitGroup
	all.Go(func() {
		defer Recover(log, "index a slice", func() []any { return []any{"packet", "0a0b"} })
		_ = []int{}[len(t.Name())]
	})
	all.Wait()
	for _, want := range []string{"index a slice: bug", "index out of range", "bug_test.go", "packet=0a0b"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log = %s, want %q in it", out.String(), want)
		}
	}
}

func TestRecovering(t *testing.T) {
	var out bytes.Buffer
	called := false
	Recovering(slog.New(slog.NewTextHandler(&out, nil)), "ring", func() { called = true; panic("no bell") })()
	if !called || !strings.Contains(out.String(), "ring: bug") {
		t.Errorf("called %v, log = %s, want the panic in it", called, out.String())
	}
}

func TestReturn(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	read := func(fail error, panics bool) (err error) {
		defer Return(log, "read", &err)
		if panics {
			panic("too short")
		}
		return fail
	}
	broken := errors.New("broken")
	if err := read(broken, false); err != broken {
		t.Errorf("without a panic the error is %v, want it as it was", err)
	}
	if err := read(nil, false); err != nil || out.Len() > 0 {
		t.Errorf("without a panic the error is %v and the log %q, want nil and nothing", err, out.String())
	}
	err := read(nil, true)
	if err == nil || !strings.HasPrefix(err.Error(), "read: ") ||
		!strings.Contains(err.Error(), "too short") {
		t.Errorf("with a panic the error is %v, want it", err)
	}
	if !strings.Contains(out.String(), "bug_test.go") {
		t.Errorf("log = %s, want where it was", out.String())
	}
}
