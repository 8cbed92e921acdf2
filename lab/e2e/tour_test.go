package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// The README's tour does what the README says: each of its commands is typed as it stands there, and prints
// what is shown below it. Not compared are the bars of a deployment, which only a terminal gets, and what
// differs from run to run and from machine to machine: see [vary].
func TestTheREADMEsTour(t *testing.T) {
	testnet.Gate(t, "qemu-system-x86_64", "dnsmasq", "tcpdump", "ip", "nsenter", "bash")
	for _, f := range []string{binary, ramdisk, mini} {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("SKIPPED %s: %s is not built; run it with `make test`", t.Name(), f)
		}
	}
	commands := tour(t)
	if len(commands) < 15 {
		t.Fatalf("%d commands were found in the tour, want all: %+v", len(commands), commands)
	}
	sh := newShell(t)
	begun := time.Now()
	for _, c := range commands {
		if strings.HasPrefix(c.line, "pxectl deploy ") {
			sh.settled()
		}
		line, asked := c.line, slices.ContainsFunc(c.shown, asksAndHears)
		if asked {
			line = onTerminal(line)
		}
		at := time.Now()
		for end := at.Add(slowdown * 30 * time.Second); ; time.Sleep(500 * time.Millisecond) {
			out, code := sh.run(line)
			if early, ok := strings.CutPrefix(out, "y\n"); ok && asked {
				// The yes waits in the terminal, which may show it before the question.
				out = strings.Replace(early, "[y/N] ", "[y/N] y\n", 1)
			}
			missing := absent(c.shown, strings.Split(out, "\n"))
			if code == 0 && missing == "" {
				break
			}
			// Who is early looks again. What changes something is typed once.
			if !looks.MatchString(c.line) || code != 0 || time.Now().After(end) {
				t.Fatalf("README.md: %s: exit code %d; want 0, and this line, in its order: %q\nit prints:\n%s",
					c.line, code, missing, out)
			}
		}
		t.Logf("%5.1f s: %s", time.Since(at).Seconds(), c.line)
	}
	t.Logf("%d commands in %.1f s", len(commands), time.Since(begun).Seconds())
}

// asksAndHears says whether a line shows a question and a person's yes.
func asksAndHears(shown string) bool { return strings.HasSuffix(shown, "[y/N] y") }

// onTerminal types a command and a yes on a terminal: without one, nobody is asked.
func onTerminal(line string) string {
	return "script -qec '" + line + "' /dev/null <<<y | tr -d '\\r'; (exit ${PIPESTATUS[0]})"
}

// looks is of commands that change nothing.
var looks = regexp.MustCompile(`^pxectl (machine (list|show)|why|events|power status)\b`)

// A typed is a command of the tour, with the lines that the README shows below it.
type typed struct {
	line  string
	shown []string
}

// tour reads the commands out of the README's blocks: lines that begin with four spaces, the commands among
// them with a prompt.
func tour(t *testing.T) (commands []typed) {
	t.Helper()
	raw, err := os.ReadFile(built("README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(raw), "\n## A tour in five minutes\n")
	text, _, ends := strings.Cut(text, "\n## ")
	if !found || !ends {
		t.Fatal("README.md has no tour")
	}
	for line := range strings.Lines(text) {
		line, block := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		command, prompt := strings.CutPrefix(line, "# ")
		switch {
		case !block:
		case prompt:
			commands = append(commands, typed{line: command})
		case len(commands) == 0:
			t.Fatalf("README.md: the tour shows %q before any command", line)
		case !strings.ContainsAny(line, "━─"):
			last := &commands[len(commands)-1]
			last.shown = append(last.shown, line)
		}
	}
	return commands
}

// absent is the first of the shown lines that does not follow, anywhere, on the one before it; "" when all do.
func absent(shown, printed []string) string {
	for _, line := range shown {
		if line == "…" || strings.TrimSpace(line) == "" {
			continue
		}
		want := fixed(line)
		i := slices.IndexFunc(printed, func(p string) bool {
			return same(want, fixed(again.ReplaceAllString(p, "")))
		})
		if i < 0 {
			return line
		}
		printed = printed[i+1:]
	}
	return ""
}

// vary is what differs from run to run (times, ids, sizes) and from machine to machine: versions of firmware,
// the processor, the number of a boot entry.
var vary = regexp.MustCompile(strings.Join([]string{
	`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`,
	`\b\d+(\.\d+)?(ms|s|m|h)(\d+[sm])?\b`,
	`\b\d+(\.\d+)? ([KMG]i?B|bytes|chunks|read back)\b`,
	`\b[md]-[0-9a-f]{8}\b`,
	`\b[0-9a-f]{12}\b`,
	`\bBoot[0-9A-F]{4}\b`,
	`\b\d+\.\d+\.\d+-debian-\S+`,
	`^cpu .*`,
}, "|"))

// again is what the timeline says more of what happened more than once, as it does on a busy machine.
var again = regexp.MustCompile(`, \d+ sent again| \(\d+ times since [^)]*\)`)

// fixed are a line's words, without what varies.
func fixed(line string) []string { return strings.Fields(vary.ReplaceAllString(line, "*")) }

// same compares words; one that is shown with … before it may have more there.
func same(want, got []string) bool {
	return slices.EqualFunc(want, got, func(w, g string) bool {
		end, cut := strings.CutPrefix(w, "…")
		return w == g || cut && strings.HasSuffix(g, end)
	})
}

func TestAbsent(t *testing.T) {
	printed := []string{
		"NAME  STATE", "m1    on since 3s, 64 MiB", "m2    off", "",
		"2026-11-20 11:03:37  m1  step  verify-os: /var/tmp/x/console.log (2 times since 2026-11-20 11:03:30)",
	}
	for _, c := range []struct {
		shown []string
		want  string
	}{
		{nil, ""},
		{[]string{"NAME STATE", "m1 on since 1m40s, 1.5 GiB"}, ""},
		{[]string{"NAME STATE", "…", "2020-01-01 00:00:00 m1 step verify-os: …/console.log"}, ""},
		{[]string{"m2 off", "m1 on since 3s, 64 MiB"}, "m1 on since 3s, 64 MiB"},
		{[]string{"m1 off since 3s, 64 MiB"}, "m1 off since 3s, 64 MiB"},
		{[]string{"m2 off", "m2 off"}, "m2 off"},
		{[]string{"m1 on"}, "m1 on"},
	} {
		if got := absent(c.shown, printed); got != c.want {
			t.Errorf("absent(%q) = %q, want %q", c.shown, got, c.want)
		}
	}
}

// A shell is a root's shell in the repository, for whom /var/tmp is a directory of the test's: a rack that
// somebody has there is left alone. All that it started ends with it, and it with us.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func newShell(t *testing.T) *shell {
	t.Helper()
	runtime.LockOSThread() // the kernel watches the thread that started the shell
	t.Cleanup(runtime.UnlockOSThread)
	dir, err := os.MkdirTemp("/var/tmp", "pxectl-tour-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*slowdown*time.Minute)
	const private = `mount --make-rprivate / && mount -t proc proc /proc && mount --bind "$0" /var/tmp && exec bash --norc`
	cmd := exec.CommandContext(ctx, "bash", "-c", private, dir)
	cmd.Dir = built("")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PXECTL_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	in, out := pipe(t), pipe(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in.r, out.w, out.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.r.Close()
	out.w.Close()
	t.Cleanup(func() {
		cancel() // it is the init of its namespace: nothing there outlives it
		_ = cmd.Wait()
		in.w.Close()
		out.r.Close()
		if t.Failed() {
			t.Logf("the rack's files are in %s", dir)
			raw, _ := os.ReadFile(filepath.Join(dir, "pxectl-lab", "appliance.log"))
			t.Logf("end of the appliance's log:\n%s", raw[max(0, len(raw)-3000):])
			return
		}
		os.RemoveAll(dir)
	})
	return &shell{t, in.w, bufio.NewReader(out.r)}
}

// settled waits until no machine is on its way to being available. Whoever reads the tour takes longer.
func (s *shell) settled() {
	s.t.Helper()
	for end := time.Now().Add(slowdown * 30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, _ := s.run("pxectl machine list")
		if !strings.Contains(out, string(inventory.Enrolled)) &&
			!strings.Contains(out, string(inventory.Inspecting)) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the machines do not become available:\n%s", out)
		}
	}
}

type ends struct{ r, w *os.File }

func pipe(t *testing.T) ends {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return ends{r, w}
}

// run types a command, waits for its end, and returns what it printed and its exit code.
func (s *shell) run(line string) (out string, code int) {
	s.t.Helper()
	const end = "END OF THE COMMAND: "
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null; echo \"%s$?\"\n", line, end); err != nil {
		s.t.Fatal(err)
	}
	for {
		got, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: the shell ended: %v\n%s", line, err, out)
		}
		before, status, ended := strings.Cut(got, end)
		if out += before; !ended {
			continue
		}
		if code, err = strconv.Atoi(strings.TrimSpace(status)); err != nil {
			s.t.Fatal(err)
		}
		return out, code
	}
}
