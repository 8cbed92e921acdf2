package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/appliance/config"
)

// freePorts returns three different TCP ports that nobody listens on.
func freePorts(t *testing.T) (http, tftp, api int) {
	t.Helper()
	ports := make([]int, 3)
	for i := range ports {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only when all are chosen: a port that is closed may be chosen again
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], ports[2]
}

// When a part cannot start, what was opened before it is closed: sockets, database and images can be opened
// again at once.
func TestAFailedStartLeavesNothingOpen(t *testing.T) {
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	http, tftp, api := freePorts(t)
	load := func(socket string) config.Config {
		text := fmt.Sprintf("data_dir: %s/data\napi: {socket: %s, port: %d}\nhttp: {port: %d}\n"+
			"tftp: {port: %d}\ndhcp: {mode: \"off\"}\nprovisioning: {interfaces: [{name: lo}]}\n",
			dir, socket, api, http, tftp)
		cfg, err := config.Parse("test", []byte(text), net.Interfaces)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	inTheWay := filepath.Join(dir, "file")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Version: "test", Log: slog.New(slog.DiscardHandler)}
	for range 2 { // twice: the first leaves nothing that the second would stumble over
		if _, err := New(load(filepath.Join(inTheWay, "s")), o); err == nil ||
			!strings.Contains(err.Error(), "api.socket") {
			t.Fatalf("New with a socket below a file = %v, want an error about api.socket", err)
		}
	}
	a, err := New(load(filepath.Join(dir, "s")), o)
	if err != nil {
		t.Fatalf("New after one that failed = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Errorf("Run of an ended context = %v", err)
	}
}
