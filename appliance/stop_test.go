package appliance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/testnet"
)

// stopPromise is how long a stop may take, as docs/security.md promises.
const stopPromise = 3 * time.Second

// stopClock measures time by its own ticks until ctx ends: other work on every core delays them as it delays
// all else in this process.
func stopClock(ctx context.Context) (elapsed func() time.Duration) {
	const tick = 10 * time.Millisecond
	var ticks atomic.Int64
	go func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				ticks.Add(1)
			}
		}
	}()
	return func() time.Duration { return time.Duration(ticks.Load()) * tick }
}

// stopEvents is a log handler that also writes which parts have stopped, which are debug messages.
type stopEvents struct{ slog.Handler }

func (stopEvents) Enabled(context.Context, slog.Level) bool { return true }

func (s stopEvents) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo && r.Message != "stopped" {
		return nil
	}
	return s.Handler.Handle(ctx, r)
}

func (s stopEvents) WithAttrs(a []slog.Attr) slog.Handler { return stopEvents{s.Handler.WithAttrs(a)} }

func (s stopEvents) WithGroup(n string) slog.Handler { return stopEvents{s.Handler.WithGroup(n)} }

func TestTheStopIsBounded(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		run  func(context.Context) error
		want error
	}{
		{"ends by itself", func(context.Context) error { return broken }, broken},
		{"stops when told", func(ctx context.Context) error { <-ctx.Done(); return broken }, broken},
		{"never stops", func(context.Context) error { select {} }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			grace := time.Hour // which no test waits for
			if c.want == nil {
				grace = stopWithin
			}
			cancel()
			elapsed := stopClock(t.Context())
			if err := within(ctx, grace, slog.New(slog.DiscardHandler), c.run); !errors.Is(err, c.want) {
				t.Errorf("within() = %v, want %v", err, c.want)
			}
			if took := elapsed(); took > stopPromise {
				t.Errorf("the stop took %v, want %v at most", took, stopPromise)
			}
		})
	}
}

// TestServe is the helper process that runs the appliance as `pxectl serve` does, but abandons a part that
// does not stop only after 20 s, so that the test sees it.
func TestServe(t *testing.T) {
	file := os.Getenv("APPLIANCE_TEST_SERVE")
	if file == "" {
		return // not skipped: nothing is left untested
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var elapsed func() time.Duration
	told := make(chan struct{})
	go func() {
		defer close(told)
		<-ctx.Done()
		elapsed = stopClock(context.Background())
	}()
	cfg, err := config.Load(file)
	if err == nil {
		log := slog.New(stopEvents{NewLog(cfg.Log, os.Stderr).Handler()})
		err = serve(ctx, cfg, Options{Version: "test", Log: log}, 20*time.Second)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-told
	fmt.Fprintln(os.Stderr, "the stop took", elapsed())
	os.Exit(0)
}

// SIGTERM stops the appliance while connections of all kinds are held open, an image comes in, a report is
// under way and a flood goes on. Every part stops by itself before it would be abandoned.
func TestTheStopUnderLoad(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, "10.77.0.1/24")
	hostile := testnet.NewHost(t, "hostile", "10.77.0.66/24", "52:54:00:66:00:01")
	dir := t.TempDir()
	short, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket, file := filepath.Join(short, "s"), filepath.Join(dir, "appliance.yaml")
	text := fmt.Sprintf("data_dir: %s/data\napi: {socket: %s}\nprovisioning: {interfaces: [{name: br0}]}\n",
		dir, socket)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The initrd is more than sockets buffer.
	for name, size := range map[string]int64{"vmlinuz": 100_000, "initrd": 256 << 20} {
		file := filepath.Join(dir, "data", "ramdisk", "amd64", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, nil, 0o600),
			os.Truncate(file, size)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	serve := exec.Command(self, "-test.run=^TestServe$")
	serve.Env = append(os.Environ(), "APPLIANCE_TEST_SERVE="+file)
	serve.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} // for its own /run/netns
	var log lockedBuffer
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() { _ = serve.Process.Kill() })
	operator, err := api.NewClient(socket)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the appliance answers", func() bool {
		_, err := operator.Version(t.Context())
		return err == nil
	})

	// Connections that say nothing, or half of something; a download that nobody reads.
	hold := func(port, first string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp4", "10.77.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, first); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for range 8 {
		hold("8443", "")
		hold("8443", "\x16\x03\x01\x02\x00\x01")
		hold("8080", "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ")
		download := hold("8080", "GET /ramdisk/amd64/initrd HTTP/1.0\r\n\r\n")
		if line, err := bufio.NewReaderSize(download, 16).ReadString('\n'); err != nil ||
			!strings.Contains(line, "200") {
			t.Fatalf("a download begins with %q, %v", line, err)
		}
	}
	// An agent that waits for an order, and one whose report never ends.
	agent := from(t, "127.0.0.7")
	if status, answer := agent.boots(clientMAC); status != 200 {
		t.Fatalf("register: %d %s", status, answer)
	}
	endless, feed := io.Pipe()
	t.Cleanup(func() { feed.Close() })
	half := make(chan struct{})
	go func() {
		_, _ = io.WriteString(feed, `{"report":{"problems":[`+strings.Repeat(`"x",`, 10_000))
		close(half)
	}()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "POST",
			"https://10.77.0.1:8443/agent/v1/orders/x/result", endless)
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+agent.nonce)
			if resp, err := agent.http.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	}()
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal(what)
		}
	}
	wait("nobody reads the report", half)
	// An image of which half has come.
	image, pour := io.Pipe()
	t.Cleanup(func() { pour.Close() })
	poured := make(chan struct{})
	go func() {
		_, _ = pour.Write(make([]byte, 64<<20))
		close(poured)
	}()
	go func() {
		_, _ = operator.Import(t.Context(), image, store.ImportOptions{Name: "half"})
	}()
	wait("nobody reads the image", poured)
	stop := flood(t, hostile, "67 4011 69 http")

	began := time.Now()
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		_, said, _ := strings.Cut(log.String(), "the stop took ")
		took, unsaid := time.ParseDuration(strings.TrimSpace(said))
		t.Logf("stopped after %v, %v by the clock on the wall, beside %s", took,
			time.Since(began).Round(time.Millisecond), stop())
		if err != nil || unsaid != nil || took > stopWithin { // else the rest would be abandoned
			t.Errorf("SIGTERM was obeyed after %v (%v) with %v, want within %v", took, unsaid, err,
				stopWithin)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("SIGTERM is not obeyed. The log: %s", log.String())
	}
	said := log.String()
	for _, part := range []string{"interfaces", "dhcp", "tftp", "http", "agents", "api", "engine"} {
		if !strings.Contains(said, "msg=stopped service="+part+"\n") {
			t.Errorf("%s has not stopped by itself", part)
		}
	}
	for _, bad := range []string{"panic", "not all has stopped in time", "a worker is still busy"} {
		if strings.Contains(said, bad) {
			t.Errorf("the log says %q: %s", bad, said)
		}
	}
}
