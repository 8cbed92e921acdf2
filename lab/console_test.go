package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestConsoleLosesNothingOverPowerCycles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	sol, err := c.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := sol.Write([]byte("nobody there")); n != 12 || err != nil {
		t.Errorf("Write while off = %d, %v, want 12 bytes dropped", n, err)
	}
	var want bytes.Buffer
	for boot := range 3 {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		said := bytes.Repeat([]byte{byte('a' + boot)}, 70_000)
		want.Write(said)
		go func() {
			_, _ = theirs.Write(said)
			theirs.Close()
		}()
		c.serve(ours) // returns when the guest's end is closed
	}
	logged, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(logged, want.Bytes()) {
		t.Errorf("log has %d bytes, %v, want the %d that were written", len(logged), err, want.Len())
	}
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := sol.ReadAvailable(buf)
		if n == 0 || err != nil {
			break
		}
		got.Write(buf[:n])
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("SOL read %d bytes, want the %d that were written", got.Len(), want.Len())
	}
	sol.Close()
	if _, err := sol.ReadAvailable(buf); !errors.Is(err, io.EOF) {
		t.Errorf("ReadAvailable after Close = %v, want EOF", err)
	}
}

func TestConsoleTypesIntoGuest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	go c.serve(ours)
	if _, err := theirs.Write([]byte("login: ")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if text, _ := os.ReadFile(path); string(text) == "login: " {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the console has not seen the guest in 10 s")
		}
	}
	sol, _ := c.Open(context.Background())
	if _, err := sol.Write([]byte("root")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(theirs, buf); err != nil || string(buf) != "root" {
		t.Errorf("guest read %q, %v, want %q", buf, err, "root")
	}
}

// The guest's output waits in the socket while the host is busy.
func TestConsoleTakesABurst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a buffer beyond net.core.wmem_max needs root")
	}
	conn, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer theirs.Close()
	fd := int(theirs.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for i := range 40_000 {
		if _, err := syscall.Write(fd, []byte{'x'}); err != nil {
			t.Fatalf("byte %d of a burst that nobody has read yet: %v", i, err)
		}
	}
}
