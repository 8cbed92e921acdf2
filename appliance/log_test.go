package appliance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/inventory"
)

func TestLogLinesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 30<<10)
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := NewLog(config.Log{Format: format}, &out)
		log.With("path", long).Info(long, "name", "a\x1b[2J\u009b31m\nb", "err", errors.New(long),
			"many", []string{long, long}, "macs", []string{"a", "b"},
			"in", slog.GroupValue(slog.String("it", long)), "at", netip.MustParseAddr("192.0.2.1"), "n", 7)
		line := out.String()
		if n := len(line); n > 2<<10 || strings.Count(line, "\n") != 1 {
			t.Errorf("%s: a line of %d bytes in %d lines", format, n, strings.Count(line, "\n"))
		}
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl); i >= 0 {
			t.Errorf("%s: a control character at %d: %q", format, i, line)
		}
		for _, want := range []string{"a [2J 31m b", "192.0.2.1", "7"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %q is missing in %s", format, want, line)
			}
		}
		if format == "json" {
			var fields map[string]any
			if err := json.Unmarshal(out.Bytes(), &fields); err != nil ||
				len(fields["path"].(string)) > logValue || len(fields["err"].(string)) > logSentence ||
				len(fields["macs"].([]any)) != 2 {
				t.Errorf("fields %v, %v", fields, err)
			}
		}
	}
}

// A floodedLog is a bounded log whose clock the test sets.
type floodedLog struct {
	*slog.Logger
	now time.Time
	out bytes.Buffer
}

func newFloodedLog() *floodedLog {
	f := &floodedLog{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	inner := slog.NewTextHandler(&f.out, nil)
	f.Logger = slog.New(boundedLog{
		Handler: inner, flood: &logFlood{now: func() time.Time { return f.now }, out: inner},
	})
	return f
}

// lines counts what was written since it was last asked.
func (f *floodedLog) lines() int {
	defer f.out.Reset()
	return strings.Count(f.out.String(), "\n")
}

func TestTheLogOfAFlood(t *testing.T) {
	log := newFloodedLog()
	for i := range 10_000 {
		log.Info("agent call refused", "ip", "192.0.2.66", "call", i)
	}
	if got := log.lines(); got != logPerSource {
		t.Errorf("10,000 refusals of one address are %d lines, want %d", got, logPerSource)
	}
	log.Info("agent call refused", "ip", "192.0.2.7")
	log.Info("tftp: not sent", "client", netip.MustParseAddrPort("192.0.2.66:4000"))
	for i := range 1000 {
		log.With("machine", "m1").Info("state", "n", i)
	}
	if got := log.lines(); got != 1002 {
		t.Errorf("what another address, another kind and the appliance itself cause is %d lines, want all 1002",
			got)
	}
	for i := range 3 * logPerKind { // from ports, and from addresses, that change
		log.Info(fmt.Sprint("dhcp: DISCOVER ", i), "mac", fmt.Sprint("52:54:00:", i))
		log.Info("tftp: not sent", "client", fmt.Sprint("192.0.2.66:", 1024+i))
	}
	if got := log.lines(); got != logPerKind+logPerSource-1 {
		t.Errorf("a flood from many sources is %d lines, want %d", got, logPerKind+logPerSource-1)
	}
	log.now = log.now.Add(logWindow + time.Second)
	log.Info("agent call refused", "ip", "192.0.2.66")
	said := log.out.String()
	for _, want := range []string{
		`kind="agent call refused" not_written=9970`,
		"most_from=192.0.2.66 of_it=10000", "kind=dhcp not_written=12000",
		"msg=\"agent call refused\" ip=192.0.2.66",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("a minute later the log says %s, want %q", said, want)
		}
	}
}

// Lines are counted by who caused them, whichever part of the appliance writes them.
func TestTheLogKnowsWhoCausedALine(t *testing.T) {
	log := newFloodedLog()
	for what, say := range map[string]func(i int){
		"workers that agents make speak": func(i int) {
			log.With("machine", i).With("from", "192.0.2.66").Info(
				fmt.Sprintf("the agent registered %d s ago", i), "kind", inventory.KindAgent)
		},
		"one address with many MACs": func(i int) {
			log.Info("boot script", "mac", i, "remote", "192.0.2.66:999")
		},
		"an address, and then a MAC": func(i int) {
			log.Info("boot script from", "remote", "192.0.2.66:999", "mac", i)
		},
		"another DHCP server": func(i int) {
			log.Warn("another DHCP server", "server", netip.MustParseAddr("192.0.2.69"), "boot", i)
		},
		"one bug": func(i int) {
			log.Error("worker: bug", "panic", i, "stack", "goroutine 1")
		},
		"a MAC that answers for all": func(i int) {
			log.Warn("dhcp: probed", "host", "52:54:00:66:00:01", "n", i)
		},
		"an agent and a flood of messages": func(i int) {
			log.Info(fmt.Sprint(i), "ip", "192.0.2.67", "kind", inventory.KindState)
		},
	} {
		for i := range 1000 {
			say(i)
		}
		if got := log.lines(); got != logPerSource {
			t.Errorf("%s: 1000 times are %d lines, want %d", what, got, logPerSource)
		}
	}
	for i := range 10 * logKinds {
		log.Info(fmt.Sprintf("%d: made up", i), "ip", "192.0.2.68")
	}
	if got := log.lines(); got > logKinds+logPerSource {
		t.Errorf("a kind of its own for each line is %d lines, want %d at most", got, logKinds+logPerSource)
	}
	log.now = log.now.Add(logWindow + time.Second)
	log.Info("agent call refused", "ip", "192.0.2.66")
	if said := log.out.String(); !strings.Contains(said, "kind=agent not_written=970") {
		t.Errorf("a minute later the log says %s, want how many lines of workers were not written", said)
	}
}
