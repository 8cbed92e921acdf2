package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
)

// readyz asks the appliance behind a socket whether it can serve machines; "" is yes.
func readyz(t *testing.T, socket string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://pxectl/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	switch {
	case resp.StatusCode == http.StatusOK && string(answer) == "ready\n":
		return ""
	case resp.StatusCode == http.StatusServiceUnavailable:
		return string(answer)
	}
	t.Fatalf("GET /readyz = %d %s, want 200 or 503", resp.StatusCode, answer)
	return ""
}

func TestReadyIsWhoCanServeMachines(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	becomes := func(when, want string) {
		t.Helper()
		said := ""
		eventually(t, fmt.Sprintf("%s: /readyz says %q", when, want), func() bool {
			said = readyz(t, s.socket)
			return want == "" && said == "" || want != "" && strings.Contains(said, want)
		})
	}
	ip := func(command string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip",
			strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", command, err, out)
		}
	}
	becomes("at the start", "")

	initrd := filepath.Join(s.data, "ramdisk", "amd64", "initrd")
	if err := os.Rename(initrd, initrd+".away"); err != nil {
		t.Fatal(err)
	}
	becomes("without a ramdisk", "there is no ramdisk")
	if err := os.Rename(initrd+".away", initrd); err != nil {
		t.Fatal(err)
	}
	becomes("with a ramdisk again", "")

	ip("link set br0 down")
	becomes("br0 is down", "no provisioning interface is up and has its address: br0 (10.77.0.1)")
	ip("link set br0 up")
	becomes("br0 is up again", "")

	ip("addr add 10.77.0.2/24 dev br0")
	taken, err := net.Listen("tcp", "10.77.0.2:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ip("addr del 10.77.0.1/24 dev br0") // removes the second one too, unless promote_secondaries is set
	ip("addr replace 10.77.0.2/24 dev br0")
	becomes("the port is taken at the new address", "http cannot be served on interface br0")
	ip("addr del 10.77.0.2/24 dev br0")
	ip("addr replace 10.77.0.1/24 dev br0")
	becomes("back at the old address", "")
	ip("addr del 10.77.0.1/24 dev br0")
	ip("addr replace 10.77.0.2/24 dev br0")
	becomes("the port is taken at the new address", "http cannot be served on interface br0")
	taken.Close()
	becomes("the port is free", "")
}

// Only the API runs here: without a database, the engine would end with an error.
func TestNotReadyWithoutADatabase(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, "10.77.0.1/24")
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf("data_dir: %[1]s/data\napi: {socket: %[1]s/s}\n"+
		"provisioning: {interfaces: [{name: br0}]}\n",
		dir)
	cfg, err := config.Parse("test", []byte(text), net.Interfaces)
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(cfg.RamdiskDir(), "amd64", "initrd")
	a, err := build(cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler)},
		func(*deploy.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(cfg.DataDir); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("data_dir is %v, %v, want it closed to others", st.Mode(), err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(initrd), 0o750),
		os.WriteFile(initrd, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	for _, s := range a.services {
		if s.name == "api" {
			go func() { ended <- s.Run(ctx) }()
		}
	}
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = a.Close()
	})
	if said := readyz(t, cfg.API.Socket); said != "" {
		t.Errorf("with a database /readyz says %s", said)
	}
	if err := a.db.Close(); err != nil {
		t.Fatal(err)
	}
	if said := readyz(t, cfg.API.Socket); !strings.Contains(said, "the database does not answer") {
		t.Errorf("without a database /readyz says %q", said)
	}
}
