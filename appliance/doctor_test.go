package appliance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// TestSecondAppliance is the helper process that plays another pxectl on another host, until its input ends.
func TestSecondAppliance(t *testing.T) {
	if os.Getenv("APPLIANCE_TEST_SECOND") == "" {
		return // not skipped: nothing is left untested
	}
	s, err := dhcpd.Listen(dhcpd.Config{
		Interfaces: []dhcpd.Interface{{Name: "eth0", Addr: netip.MustParseAddr("10.77.0.2")}},
		Decide: bootPlane{
			engine: newEngine(t), addresses: &addresses{list: neighbourTable},
			http: 8080,
		}.dhcp,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// newEngine makes an engine that knows no machine and offers every stranger the agent.
func newEngine(t *testing.T) *deploy.Engine {
	t.Helper()
	db, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	e, err := deploy.New(deploy.Config{
		Store:  db,
		Key:    nonce.Key("0123456789abcdef0123456789abcdef"),
		Policy: deploy.PolicyApprove,
		Log:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestASecondPxectlIsNamed(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	lan := testnet.NewHost(t, "lan", "10.77.0.2/24", "")
	t.Cleanup(func() { lan.Run(t, "ip", "link", "del", "eth0") })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	second := lan.Command(self, "-test.run=^TestSecondAppliance$")
	second.Env = append(os.Environ(), "APPLIANCE_TEST_SECOND=1")
	stop, err := second.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop.Close(); _ = second.Wait() })
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	want, got := `fail: another pxectl, 10.77.0.2 on br0, tells machines to boot "snponly.efi"`, ""
	for end := time.Now().Add(20 * time.Second); !strings.Contains(got, want); { // it takes a moment to start
		checks, err := remote.Doctor(t.Context())
		if got = apitest.ChecksOf(checks, "other DHCP servers"); err != nil || time.Now().After(end) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
}

// The doctor of a running appliance is asked over its socket, as the command does it, with another DHCP
// server on the wire.
func TestDoctorOfARunningAppliance(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	s := newSite(t)
	s.bmc.Set(true)
	for i, address := range []string{"192.0.2.51", "192.0.2.52"} {
		if _, err := s.engine.AddMachine(t.Context(), "test", deploy.NewMachine{
			Name: fmt.Sprintf("m%d", i+1),
			UUID: fmt.Sprintf("4c4c4544-0000-1000-8000-00000000000%d", i),
			BMC:  deploy.BMCEdit{Address: &address},
		}); err != nil {
			t.Fatal(err)
		}
	}
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	until := func(subject, want string) {
		t.Helper()
		var got string
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			checks, err := remote.Doctor(t.Context())
			if got = apitest.ChecksOf(checks, subject); err == nil && strings.HasPrefix(got, want) {
				return
			}
		}
		t.Errorf("%s: %q, want %q", subject, got, want)
	}
	checks, err := remote.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]string{
		"other DHCP servers": "warn: none hands out addresses, and dhcp.mode proxy needs one",
		"interface br0":      "pass: 10.77.0.1", "ports": "pass: all are open",
		"ramdisk": "pass: amd64", "images": "warn: there is none", "BMCs": "pass: 2 of 2 answer",
		"timeline": "pass: ", "permissions": "pass: ",
	} {
		if got := apitest.ChecksOf(checks, subject); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", subject, got, want)
		}
	}
	otherServer(t, "--dhcp-boot=pxelinux.0") // no machine boots: the doctor itself asks
	until("other DHCP servers",
		`fail: another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`)
	named := false
	for end := time.Now().Add(time.Minute); !named &&
		time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		events, err := s.engine.Events(0, "", 1000)
		named = err == nil &&
			strings.Contains(fmt.Sprint(events),
				"another DHCP server, 10.77.0.2 on br0, tells machines to boot")
	}
	if !named {
		t.Error("no event names the other server")
	}
	cmd := exec.CommandContext(t.Context(), "ip", "link", "set", "br0", "down")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until("interface br0", "fail: ")
}

// By default, dnsmasq pings an address for three seconds before it offers it. The doctor's first run waits
// for that.
func TestDoctorHearsASlowServer(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	s := newSite(t)
	otherServer(t, slowly)
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := remote.Doctor(t.Context())
	if got, want := apitest.ChecksOf(checks, "other DHCP servers"), "pass: 10.77.0.2 on br0"; err != nil ||
		!strings.HasPrefix(got, want) {
		t.Errorf("beside a dnsmasq that pings first: %q, %v, want %q", got, err, want)
	}
}
