package lab

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testSupervisor(t *testing.T) *supervisor {
	return &supervisor{
		Config: Config{Dir: t.TempDir()}, log: slog.New(slog.DiscardHandler), children: newChildren(),
	}
}

func TestServiceIsStartedAgain(t *testing.T) {
	s := testSupervisor(t)
	svc := service{
		name: "sh",
		argv: []string{"sh", "-c", "echo began; exec sleep 0.1"},
		log:  filepath.Join(s.Dir, "sh.log"),
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped, err := s.runService(ctx, svc)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(svc.log); strings.Count(string(text), "began") >= 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not started again in 20 s")
		}
	}
	cancel()
	select {
	case <-stopped:
	case <-time.After(stopGrace + time.Minute):
		t.Error("still running after its context ended")
	}
}

func TestServiceThatDoesNotStart(t *testing.T) {
	tests := []struct {
		name string
		argv []string
		err  string
	}{
		{
			name: "no such program",
			argv: []string{"/nonexistent/program"},
			err:  "start x: fork/exec /nonexistent/program",
		},
		{
			name: "ends before it is ready",
			argv: []string{"sh", "-c", "echo bad option --foo >&2; exit 2"},
			err:  "x ended at once: bad option --foo",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testSupervisor(t)
			_, err := s.runService(t.Context(), service{
				name:  "x",
				argv:  tt.argv,
				log:   filepath.Join(s.Dir, "x.log"),
				ready: filepath.Join(s.Dir, "ready"),
			})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("runService error = %v, want one with %q", err, tt.err)
			}
		})
	}
}

func TestCheckInstalledNamesPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := checkInstalled(Config{})
	const want = "qemu-system-x86_64, dnsmasq, tcpdump, ip, nsenter"
	if err == nil || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(),
			"apt-get install --no-install-recommends qemu-system-x86 dnsmasq-base tcpdump iproute2 util-linux") {
		t.Errorf("checkInstalled = %v, want it to name %s and their packages", err, want)
	}
}
