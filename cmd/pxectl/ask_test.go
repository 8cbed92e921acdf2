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

	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/inventory"
)

// pseudoTerminal returns a terminal, and the end at which a person types and reads.
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

// An atTerminal is a command that runs at a terminal, with the end of the person.
type atTerminal struct {
	t        *testing.T
	args     []string
	cmd      *exec.Cmd
	person   *os.File
	terminal *os.File
	shown    seen
}

func startAtTerminal(t *testing.T, socket string, args ...string) *atTerminal {
	t.Helper()
	a := &atTerminal{
		t:    t,
		args: args,
		cmd:  exec.CommandContext(t.Context(), "pxectl", append(args, "--socket", socket)...),
	}
	a.person, a.terminal = pseudoTerminal(t)
	a.cmd.Stdin, a.cmd.Stdout, a.cmd.Stderr = a.terminal, a.terminal, a.terminal
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := a.person.Read(b)
			if err != nil {
				return
			}
			_, _ = a.shown.Write(b[:n])
		}
	}()
	return a
}

func (a *atTerminal) until(what string, reached func() bool) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			_ = a.cmd.Process.Kill()
			a.t.Fatalf("%v: waited a minute for %s; on the terminal is %q", a.args, what, a.shown.String())
		}
	}
}

func (a *atTerminal) types(s string) {
	a.t.Helper()
	if _, err := a.person.WriteString(s); err != nil {
		a.t.Fatal(err)
	}
}

// fails waits until the command has ended with exitFailed.
func (a *atTerminal) fails() {
	a.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- a.cmd.Wait() }()
	select {
	case err := <-ended:
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailed {
			a.t.Errorf("%v: %v, want exit code %d", a.args, err, exitFailed)
		}
	case <-time.After(time.Minute):
		_ = a.cmd.Process.Kill()
		a.t.Errorf("%v: still runs after a minute", a.args)
	}
}

// echoes says whether the terminal shows what is typed.
func (a *atTerminal) echoes() bool {
	a.t.Helper()
	mode, err := unix.IoctlGetTermios(int(a.terminal.Fd()), unix.TCGETS)
	if err != nil {
		a.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// served serves a fleet and returns its socket.
func served(t *testing.T, fleet *apitest.Fleet) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	if err := serveFleet(t.Cleanup, dir, socket, fleet); err != nil {
		t.Fatal(err)
	}
	return socket
}

// An interrupt at a question ends the command at once, and leaves the terminal as it was.
func TestAnInterruptAtAQuestion(t *testing.T) {
	fleet, err := fleetNamed("moved")
	if err != nil {
		t.Fatal(err)
	}
	socket := served(t, fleet)
	for question, args := range map[string][]string{
		"gone. Go on? [y/N] ":     {"machine", "clean", "web1"},
		"commands. Go on? [y/N] ": {"machine", "approve", "--all"},
		"BMC password: ":          {"machine", "edit", "web1", "--bmc-password-file", "-"},
		"BMC key K_g: ":           {"machine", "edit", "web1", "--bmc-kg-file", "-"},
	} {
		a := startAtTerminal(t, socket, args...)
		a.until("the question", func() bool { return strings.Contains(a.shown.String(), question) })
		if strings.HasPrefix(question, "BMC") {
			a.until("a terminal that shows nothing", func() bool { return !a.echoes() })
		}
		a.types("\x03")
		a.fails()
		a.until("the last line", func() bool {
			return strings.HasSuffix(a.shown.String(), "\r\npxectl: nothing was done\r\n")
		})
		if !a.echoes() {
			t.Errorf("%v: the terminal still shows nothing of what is typed", args)
		}
	}
}

// A yes is for the BMCs that were shown: a machine that reports another one meanwhile is refused by name, and
// the others are let in.
func TestAYesIsForTheBMCsThatWereShown(t *testing.T) {
	for what, c := range map[string]struct {
		args []string
		of   string // the machine that reports another one
	}{
		"approve": {[]string{"machine", "approve", "--all"}, "web10"},
		"edit":    {[]string{"machine", "edit", "web1", "db1", "--accept-bmc", "ask"}, "web1"},
	} {
		fleet, err := fleetNamed("moved")
		if err != nil {
			t.Fatal(err)
		}
		fleet.Discover("52:54:00:00:00:99", "192.0.2.15")
		before, err := fleet.Machine(c.of)
		if err != nil {
			t.Fatal(err)
		}
		a := startAtTerminal(t, served(t, fleet), c.args...)
		a.until("the question", func() bool { return strings.Contains(a.shown.String(), "Go on? [y/N] ") })
		fleet.Report(c.of, inventory.BMCProposal{Address: "192.0.2.99", At: apitest.Epoch})
		a.types("y\n")
		a.fails()
		want := fmt.Sprintf("%s: the agent reports the BMC at 192.0.2.99 now, and not at %q", c.of,
			before.BMC.Proposed.Address)
		a.until("the refusal", func() bool { return strings.Contains(a.shown.String(), want) })
		if m, err := fleet.Machine(c.of); err != nil || m.BMC.Address != before.BMC.Address ||
			m.State != before.State {
			t.Errorf("%s: %s is %s with its BMC at %q, %v; want it as it was", what, c.of, m.State,
				m.BMC.Address, err)
		}
		for name, bmc := range map[string]string{"m000099": "192.0.2.15", "db1": "192.0.2.14"} {
			m, err := fleet.Machine(name)
			if asked := (name == "db1") == (what == "edit"); err != nil || asked != (m.BMC.Address == bmc) {
				t.Errorf("%s: the BMC of %s is %q, %v; want %s when it was asked about: %v", what, name,
					m.BMC.Address, err, bmc, asked)
			}
		}
	}
}
