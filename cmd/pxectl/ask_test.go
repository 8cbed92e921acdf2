package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pseudoTerminal is a terminal and who sits at it.
func pseudoTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	// A container may have none, or the file and nothing behind it.
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs a pseudo-terminal: ", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

// seen is what has appeared on a terminal.
type seen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *seen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// An interrupt at a question ends the command at once, and leaves the terminal as it was.
func TestAnInterruptAtAQuestion(t *testing.T) {
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fleet, err := fleetNamed("rack")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	if err := serveFleet(t.Cleanup, dir, socket, fleet); err != nil {
		t.Fatal(err)
	}
	for question, args := range map[string][]string{
		"Go on? [y/N] ":  {"machine", "clean", "web1"},
		"BMC password: ": {"machine", "edit", "web1", "--bmc-password-file", "-"},
		"BMC key K_g: ":  {"machine", "edit", "web1", "--bmc-kg-file", "-"},
	} {
		person, terminal := pseudoTerminal(t)
		cmd := exec.CommandContext(t.Context(), "pxectl", append(args, "--socket", socket)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var shown seen
		go func() {
			b := make([]byte, 4096)
			for {
				n, err := person.Read(b)
				if err != nil {
					return
				}
				_, _ = shown.Write(b[:n])
			}
		}()
		until := func(what string, reached func() bool) {
			t.Helper()
			for end := time.Now().Add(time.Minute); !reached(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					_ = cmd.Process.Kill()
					t.Fatalf("%v: waited a minute for %s; on the terminal is %q", args, what, shown.String())
				}
			}
		}
		echoes := func() bool {
			mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			return mode.Lflag&unix.ECHO != 0
		}
		until("the question", func() bool { return strings.Contains(shown.String(), question) })
		if question != "Go on? [y/N] " {
			until("a terminal that shows nothing", func() bool { return !echoes() })
		}
		if _, err := person.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailed {
				t.Errorf("%v: %v, want exit code %d", args, err, exitFailed)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("%v: still runs a minute after the interrupt", args)
		}
		until("the last line", func() bool { return strings.HasSuffix(shown.String(), "\r\npxectl: nothing was done\r\n") })
		if !echoes() {
			t.Errorf("%v: the terminal still shows nothing of what is typed", args)
		}
	}
}
