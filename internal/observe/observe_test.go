package observe

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Values come in their order, even after one at which the observer panics.
func TestOrder(t *testing.T) {
	var log bytes.Buffer
	var got []int
	q := New(slog.New(slog.NewTextHandler(&log, nil)), "numbers", func(n int) {
		if n == 2 {
			panic("two")
		}
		got = append(got, n)
	})
	for n := range 5 {
		q.Put(n)
	}
	q.Close()
	q.Close()
	q.Put(9)
	if want := []int{0, 1, 3, 4}; !slices.Equal(got, want) || q.Lost() != 0 {
		t.Errorf("the observer saw %v, want %v; %d left out, want none", got, want, q.Lost())
	}
	if !strings.Contains(log.String(), "tell of numbers: bug") {
		t.Errorf("log = %s, want the panic in it", log.String())
	}
}

// An observer that hangs holds nobody up: values past the bound are left out and counted, and Close returns.
func TestHangingObserver(t *testing.T) {
	log := make(lines, 9)
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	q := New(slog.New(slog.NewTextHandler(log, nil)), "numbers", func(int) {
		once.Do(func() { close(begun) })
		<-release
	})
	q.Put(0)
	<-begun
	for n := range waiting + 7 {
		q.Put(n)
	}
	if q.Lost() != 7 {
		t.Errorf("%d left out, want 7", q.Lost())
	}
	if said := <-log; !strings.Contains(said, "the timeline does not keep up with numbers") {
		t.Errorf("the log says %q, want that the observer is too slow", said)
	}
	q.Close()
	close(release)
	if len(log) > 0 {
		t.Errorf("the log says more: %q", <-log)
	}
}

// lines is a log that a test reads line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}
