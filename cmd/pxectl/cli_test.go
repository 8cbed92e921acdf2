package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

func TestNaturally(t *testing.T) {
	want := []string{"", "a", "m1", "m01", "m2", "m2b", "m10", "m10-1", "m10-2", "n"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareNatural)
	want[2], want[3] = "m01", "m1" // equal but for the zero: as text
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
}

func FuzzNaturally(f *testing.F) {
	f.Add("m2", "m10", "m1")
	f.Add("007", "7", "00")
	f.Add("ä1", "a9999999999999999999999", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if compareNatural(a, b) != -compareNatural(b, a) || (compareNatural(a, b) == 0) != (a == b) {
			t.Errorf("compareNatural(%q, %q) = %d, the other way %d", a, b, compareNatural(a, b),
				compareNatural(b, a))
		}
		if compareNatural(a, b) < 0 && compareNatural(b, c) < 0 && compareNatural(a, c) >= 0 {
			t.Errorf("%q < %q < %q, but not %q < %q", a, b, c, a, c)
		}
	})
}

func TestSelector(t *testing.T) {
	m := inventory.Machine{Labels: map[string]string{"rack": "a", "role": "web", "empty": ""}}
	for _, tt := range []struct {
		selector string
		matches  bool
		fails    bool
	}{
		{"", true, false},
		{"rack=a", true, false},
		{"rack=a,role=web", true, false},
		{" rack = a , role=web", true, false},
		{"rack=a,role=db", false, false},
		{"empty=", true, false},
		{"none=", false, false},
		{"rack=a,rack=a", true, false},
		{"rack=a,rack=b", false, true},
		{"rack", false, true},
		{"=a", false, true},
		{"rack=a,", false, true},
	} {
		sel, err := parseSelector(tt.selector)
		if (err != nil) != tt.fails || err == nil && sel.matches(m) != tt.matches {
			t.Errorf("selector %q: %v, %v, want a match %v, an error %v", tt.selector, sel, err, tt.matches,
				tt.fails)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "a=b", "a=b,c=d", "a==b", ",", "a=b,a=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := parseSelector(s)
		if err != nil {
			return
		}
		if !sel.matches(inventory.Machine{Labels: sel}) {
			t.Errorf("selector %q does not match the labels that it names", s)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("web*")
	f.Add("[")
	f.Add("52:54:00:00:00:01")
	all := []inventory.Machine{
		{ID: "m-1", Name: "web1", MACs: []inventory.MAC{"52:54:00:00:00:01"}}, {ID: "m-2", Name: "web2"},
	}
	f.Fuzz(func(t *testing.T, arg string) {
		found, err := matching(all, arg)
		if len(found) > len(all) || err != nil && exitCode(err) != exitUsage {
			t.Errorf("matching(%q) = %v, %v", arg, found, err)
		}
	})
}

func TestLabelEdits(t *testing.T) {
	a, empty := "a", ""
	got, err := labelEdits([]string{"rack=a", "old-", "none=", "x-y=a"}, true)
	if diff := cmp.Diff(map[string]*string{"rack": &a, "old": nil, "none": &empty, "x-y": &a},
		got); diff != "" || err != nil {
		t.Errorf("labelEdits: %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "rack", "=a", "-"} {
		if got, err := labelEdits([]string{bad}, true); err == nil {
			t.Errorf("labelEdits(%q) = %v, want an error", bad, got)
		}
	}
	if _, err := labelEdits([]string{"old-"}, false); err == nil {
		t.Error("a new machine has a label to remove, want an error")
	}
}

func TestHumane(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	c := &cli{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 90 * time.Second: "1m", 59 * time.Minute: "59m",
		47 * time.Hour: "47h", 49 * time.Hour: "2d",
	} {
		if got := c.age(now.Add(-d)); got != want {
			t.Errorf("age of %v = %q, want %q", d, got, want)
		}
	}
	if got := c.age(time.Time{}); got != "" {
		t.Errorf("age of no time = %q, want nothing", got)
	}
	for d, want := range map[time.Duration]string{
		0: "0.0s", 940 * time.Millisecond: "0.9s", 9949 * time.Millisecond: "9.9s",
		9950 * time.Millisecond: "10s", 59400 * time.Millisecond: "59s",
		59600 * time.Millisecond: "1m00s", 100 * time.Second: "1m40s", 3599600 * time.Millisecond: "1h00m",
		62 * time.Minute: "1h02m",
	} {
		if got := took(d); got != want {
			t.Errorf("took(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 10 << 20: "10 MiB",
		1288490188: "1.2 GiB", 1 << 40: "1.0 TiB",
	} {
		if got := binary(n); got != want {
			t.Errorf("binary(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0:00", 67 * time.Second: "1:07",
		3723 * time.Second: "1:02:03",
	} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü": "plain ü", "a\x1b[2Jb": "a?[2Jb", "two\nlines": "two lines", "\u202egnol": "?gnol",
		"bad\xff": "bad?",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestExitCode(t *testing.T) {
	problem := func(c inventory.Code) error { return &inventory.Problem{Code: c, Detail: string(c)} }
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"done", nil, 0},
		{"anything", errors.New("x"), 1},
		{"usage", usagef("x"), 2},
		{"not found", fmt.Errorf("m1: %w", problem(inventory.CodeNotFound)), 3},
		{"timed out", problem(inventory.CodeTimeout), 4},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), 4},
		{"bmc", problem(inventory.CodeBMC), 1},
		{
			"several of one kind",
			joinErrors([]error{nil, problem(inventory.CodeNotFound), problem(inventory.CodeNotFound)}), 3,
		},
		{
			"several kinds", joinErrors([]error{
				problem(inventory.CodeNotFound),
				problem(inventory.CodeTimeout),
			}), 1,
		},
		{"seen already", reported{problem(inventory.CodeTimeout)}, 4},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: exitCode(%v) = %d, want %d", tt.name, tt.err, got, tt.want)
		}
	}
}

// A socket that may not be used is no appliance that does not run.
func TestNotAnswering(t *testing.T) {
	for err, want := range map[syscall.Errno]string{
		syscall.EACCES:       "no permission to ask at /s: run as root, or as a member of the socket's group",
		syscall.ENOENT:       "not running at /s",
		syscall.ECONNREFUSED: "not running at /s",
		syscall.ECONNRESET:   "went away",
	} {
		// As the client wraps it.
		p := &inventory.Problem{
			Detail: "went away",
			Err:    fmt.Errorf("%w: %w", api.ErrUnreachable, &net.OpError{Op: "dial", Err: err}),
		}
		if got := notAnswering("/s", p); got != want {
			t.Errorf("notAnswering(%v) = %q, want %q", err, got, want)
		}
	}
}

// A hint is added where there is none, and changes neither the text nor the exit code.
func TestHinted(t *testing.T) {
	for _, err := range []error{errors.New("x"), usagef("x"), fmt.Errorf("x: %w", context.DeadlineExceeded)} {
		got := hinted(err, "do this")
		if hintOf(got) != "do this" || got.Error() != err.Error() || exitCode(got) != exitCode(err) {
			t.Errorf("hinted(%v) = %v with %q, exit code %d, want %d", err, got, hintOf(got), exitCode(got),
				exitCode(err))
		}
		if again := hinted(got, "or that"); hintOf(again) != "do this" {
			t.Errorf("hinted twice: %q, want the first hint", hintOf(again))
		}
	}
	if err := whoMayServe(fmt.Errorf("keys: %w", fs.ErrPermission)); !strings.HasPrefix(hintOf(err),
		"run it as root, or as the user that data_dir belongs to") {
		t.Errorf("no permission to serve: %q, want who may", hintOf(err))
	}
}

func TestEscapes(t *testing.T) {
	for _, tt := range []struct {
		name, keys, sent string
		leaves           bool
	}{
		{"plain", "ls\r", "ls\r", false},
		{"leave at once", "~.", "", true},
		{"leave after a line", "ls\r~.rm", "ls\r", true},
		{"not in the middle of a line", "a~.b", "a~.b", false},
		{"a tilde", "~~.", "~.", false},
		{"a tilde and something", "~x~.", "~x~.", false},
		{"a tilde and a new line", "~\r~.", "~\r", true},
		{"a tilde at the end", "~", "~", false},
		{"control keys", "\x03\x04\x1b[A", "\x03\x04\x1b[A", false},
	} {
		for how, r := range map[string]io.Reader{
			"at once":    strings.NewReader(tt.keys),
			"one by one": iotest.OneByteReader(strings.NewReader(tt.keys)),
		} {
			var sent bytes.Buffer
			_, err := io.Copy(&sent, struct{ io.Reader }{newEscapes(r)})
			if sent.String() != tt.sent || errors.Is(err, errLeave) != tt.leaves {
				t.Errorf("%s, %s: sent %q, %v, want %q, leaving %v", tt.name, how, sent.String(), err,
					tt.sent, tt.leaves)
			}
		}
	}
}

func FuzzEscapes(f *testing.F) {
	f.Add([]byte("~.~~\r~x"))
	f.Fuzz(func(t *testing.T, keys []byte) {
		var whole, single bytes.Buffer
		_, err1 := io.Copy(&whole, struct{ io.Reader }{newEscapes(bytes.NewReader(keys))})
		_, err2 := io.Copy(&single, struct{ io.Reader }{
			newEscapes(iotest.OneByteReader(bytes.NewReader(keys))),
		})
		if whole.String() != single.String() || !errors.Is(err1, err2) {
			t.Errorf("%q: %q, %v at once but %q, %v one by one", keys, whole.String(), err1, single.String(),
				err2)
		}
		if whole.Len() > len(keys) {
			t.Errorf("%q became more: %q", keys, whole.String())
		}
	})
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	c := &cli{err: &out}
	b := c.newProgress(t.Context(), []string{"m1", "web10"}, 0)
	at := func(i int, seconds int, step string, done, total uint64) {
		b.show(i, moment{
			at: time.Duration(seconds) * time.Second, step: step, done: done << 20, total: total << 20,
		})
	}
	at(0, 0, "validate", 0, 0)
	at(0, 1, "validate", 0, 0)
	at(0, 2, "write-image", 0, 0)
	at(0, 3, "write-image", 10, 1000) // the first figure of a step comes at once
	at(0, 12, "write-image", 90, 1000)
	at(1, 12, "boot-agent", 0, 0)
	at(0, 13, "write-image", 110, 1000) // 10 s after the last one
	at(0, 14, "read-back", 0, 1000)
	b.show(0, moment{at: 95 * time.Second, step: "deployed", end: true})
	b.note("the appliance went away; waiting for it")
	b.close()
	want := `   0:00  m1     validate
   0:02  m1     write-image
   0:03  m1     write-image  10 MiB of 1000 MiB  1%
   0:12  web10  boot-agent
   0:13  m1     write-image  110 MiB of 1000 MiB  11%  10 MiB/s
   0:14  m1     read-back  0 B of 1000 MiB  0%
   1:35  m1     deployed
         the appliance went away; waiting for it
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestImageName(t *testing.T) {
	for source, want := range map[string]string{
		"debian-12.qcow2": "debian-12", "/a/b/os.raw.xz": "os",
		"https://example.com/x/os.img.zst?sig=1": "os", "-": "", "https://example.com/": "", "disk": "disk",
		"v1.2.raw": "v1.2",
	} {
		if got := imageName(source); got != want {
			t.Errorf("imageName(%q) = %q, want %q", source, got, want)
		}
	}
}
