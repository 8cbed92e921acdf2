package appliance

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/powertest"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// A site is an appliance on br0 of a private network, with its real sockets. Its clock can be put forward, so
// that a test need not wait until a silence is long.
type site struct {
	engine *deploy.Engine
	data   string // directory
	socket string
	bmc    *powertest.BMC
	ahead  atomic.Int64 // of the engine's clock
	log    lockedBuffer
}

// newSite runs an appliance on br0. more is added to its configuration, which is for dhcp.mode proxy.
func newSite(t *testing.T, more ...string) *site {
	t.Helper()
	testnet.Bridge(t, "10.77.0.1/24")
	dir := t.TempDir()
	short, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	text := fmt.Sprintf("data_dir: %s\napi: {socket: %s/s}\n", dir, short) + strings.Join(more, "")
	if !strings.Contains(text, "provisioning:") {
		text += "provisioning: {interfaces: [{name: br0}]}\n"
	}
	cfg, err := config.Parse("test", []byte(text), net.Interfaces)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vmlinuz", "initrd"} {
		file := filepath.Join(cfg.RamdiskDir(), "amd64", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, 100_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &site{bmc: &powertest.BMC{}, socket: cfg.API.Socket, data: dir}
	a, err := build(cfg, Options{
		Version: "test",
		Log:     NewLog(config.Log{Format: "json"}, &s.log),
	}, func(e *deploy.Config) {
		if e.BMC.Password == "" { // with a password, the test uses the real driver
			e.OpenBMC = func(power.Target) (power.BMC, error) { return s.bmc, nil }
		}
		e.Pace, e.Now = powertest.Fast, func() time.Time {
			return time.Now().Add(time.Duration(s.ahead.Load()))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.engine = a.engine
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the appliance ended with %v", err)
		}
	})
	return s
}

// why asks until the sentence is the wanted one: what the boot plane saw is on the timeline within a fifth of
// a second, and a stalled transfer is given up after nine.
func (s *site) why(t *testing.T, ref, sentence, next string) diagnose.Diagnosis {
	t.Helper()
	s.ahead.Store(int64(10 * time.Minute))
	var d diagnose.Diagnosis
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if d, err = s.engine.Why(ref); err == nil && strings.Contains(d.Sentence, sentence) &&
			strings.Contains(d.Next, next) {
			return d
		}
	}
	var evidence strings.Builder
	for _, e := range d.Evidence {
		fmt.Fprintf(&evidence, "\n%s %s %v", e.Kind, e.Text, e.Data)
	}
	t.Fatalf("why %s: %q, next %q (%v), want %q, %q%s", ref, d.Sentence, d.Next, err, sentence, next,
		evidence.String())
	return d
}

const clientMAC = inventory.MAC("52:54:00:77:00:02")

// client makes a host that boots, with an address that it has already.
func client(t *testing.T) testnet.Host {
	t.Helper()
	h := testnet.NewHost(t, "client", "10.77.0.60/24", string(clientMAC))
	t.Cleanup(func() { h.Run(t, "ip", "link", "del", "eth0") })
	h.Run(t, "ip", "route", "add", "default", "dev", "eth0") // for 255.255.255.255
	return h
}

// slowly is an option of otherServer: dnsmasq pings each address before it offers it, which is its default.
const slowly = "--log-dhcp"

// otherServer starts the site's DHCP server, which is not ours: dnsmasq at 10.77.0.2.
func otherServer(t *testing.T, options ...string) {
	t.Helper()
	if !slices.Contains(options, slowly) {
		options = append(options, "--no-ping")
	}
	lan := testnet.NewHost(t, "lan", "10.77.0.2/24", "")
	t.Cleanup(func() { lan.Run(t, "ip", "link", "del", "eth0") })
	cmd := lan.Command("dnsmasq", append([]string{
		"--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--user=root",
		"--dhcp-authoritative",
		"--dhcp-range=10.77.0.100,10.77.0.150,10m", "--dhcp-host=" + string(clientMAC) + ",10.77.0.60",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"),
	}, options...)...)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		once := sync.OnceFunc(func() { close(ready) })
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if strings.Contains(lines.Text(), "DHCP, IP range") {
				once()
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-drained
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-drained:
		t.Fatal("dnsmasq ended before it was ready")
	}
}

// plug changes a link on the appliance's side.
func plug(t *testing.T, link string, how ...string) {
	t.Helper()
	if out, err := exec.Command("ip",
		append([]string{"link", "set", link}, how...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
