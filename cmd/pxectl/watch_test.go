package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/inventory"
)

// shared is a buffer that a test reads while a command writes to it.
type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *shared) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.String(),
		text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", text, s.String())
		}
	}
}

// TestWaitOutlivesTheAppliance: the appliance goes away in the middle of a deployment and comes back. `deploy
// --wait` still shows the end.
func TestWaitOutlivesTheAppliance(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	fleet := apitest.New(inventory.Machine{Name: "m1", State: inventory.Available})
	fleet.Halt()
	log := slog.New(slog.DiscardHandler)
	handler := api.NewServer(api.Config{Fleet: fleet, Version: "test", Log: log}).Handler()
	serve := func() (stop func()) {
		l, err := api.ListenUnix(socket)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- api.Serve(ctx, l, handler, log) }()
		return func() { cancel(); <-ended }
	}

	stop := serve()
	var out, errOut shared
	code := make(chan int, 1)
	go func() {
		now := func() time.Time { return apitest.Epoch }
		code <- run([]string{"--socket", socket, "deploy", "m1", "--image", "x", "--wait"},
			strings.NewReader(""), &out, &errOut, now)
	}()
	errOut.waitFor(t, "m1  validate")
	stop()
	errOut.waitFor(t, "the appliance went away; waiting for it")
	fleet.Walk()
	stop = serve()
	defer stop()
	errOut.waitFor(t, "the appliance is back")
	if got := <-code; got != exitDone || !strings.Contains(out.String(), "succeeded") {
		t.Errorf("exit code %d, want 0, and:\n%s%s", got, out.String(), errOut.String())
	}
}
