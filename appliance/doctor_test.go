package appliance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// of finds the checks of a subject, a line each.
func of(checks []api.Check, subject string) string {
	var out []string
	for _, c := range checks {
		if c.Subject == subject {
			out = append(out, fmt.Sprintf("%s: %s", c.Status, c.Text))
		}
	}
	return strings.Join(out, "\n")
}

// Everything that can be wrong with a configuration's house is found without a running appliance, and named with the next move.
func TestDoctorWithoutAnAppliance(t *testing.T) {
	loopback := Interface{Name: "lo", Address: netip.MustParseAddr("127.0.0.1")}
	house := func(t *testing.T) Config {
		c := defaults()
		c.DataDir = t.TempDir()
		c.API.Socket = filepath.Join(c.DataDir, "s")
		c.Provisioning.Interfaces = []Interface{loopback}
		c.DHCP.Mode, c.TFTP.Port, c.HTTP.Port, c.API.Port = "off", 40069, 40080, 40443
		return c
	}
	write := func(t *testing.T, mode os.FileMode, path ...string) {
		t.Helper()
		file := filepath.Join(path...)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil         func(t *testing.T, c *Config)
		subject, want string
	}{
		"no ramdisk":     {func(*testing.T, *Config) {}, "ramdisk", "fail: none in "},
		"half a ramdisk": {func(t *testing.T, c *Config) { write(t, 0o644, c.RamdiskDir(), "amd64", "vmlinuz") }, "ramdisk", "fail: kernel or ramdisk is missing for amd64"},
		"a ramdisk": {func(t *testing.T, c *Config) {
			write(t, 0o644, c.RamdiskDir(), "arm64", "vmlinuz")
			write(t, 0o644, c.RamdiskDir(), "arm64", "initrd")
		}, "ramdisk", "pass: arm64"},
		"no image": {func(*testing.T, *Config) {}, "images", "warn: there is none to deploy"},
		"an image": {func(t *testing.T, c *Config) {
			write(t, 0o644, c.DataDir, "images", strings.Repeat("0", 64), "manifest.json")
		}, "images", "pass: 1"},
		"an open key":      {func(t *testing.T, c *Config) { write(t, 0o644, c.DataDir, "keys", "age.key") }, "permissions", "fail: "},
		"an open database": {func(t *testing.T, c *Config) { write(t, 0o604, c.DataDir, "pxectl.db") }, "permissions", "fail: "},
		"a closed one":     {func(t *testing.T, c *Config) { write(t, 0o600, c.DataDir, "pxectl.db") }, "permissions", "pass: "},
		"an open password": {func(t *testing.T, c *Config) {
			c.BMC.Password, c.Path = "x", filepath.Join(c.DataDir, "appliance.yaml")
			write(t, 0o644, c.Path)
		}, "permissions", "fail: "},
		"a writable tree": {func(t *testing.T, c *Config) {
			if err := os.Chmod(c.DataDir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "permissions", "fail: "},
		"an interface gone": {func(_ *testing.T, c *Config) { c.Provisioning.Interfaces[0].Name = "eno9" }, "interface eno9", "fail: is not there"},
		"an address gone":   {func(_ *testing.T, c *Config) { c.Provisioning.Interfaces[0].Address = netip.MustParseAddr("192.0.2.1") }, "interface lo", "fail: no longer has the address 192.0.2.1"},
		"ports free":        {func(*testing.T, *Config) {}, "ports", "pass: all are free"},
		"a port taken": {func(t *testing.T, c *Config) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			c.HTTP.Port = l.Addr().(*net.TCPAddr).Port
		}, "ports", "fail: TCP port "},
		"an appliance has them": {func(t *testing.T, c *Config) {
			l, err := net.Listen("unix", c.API.Socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "ports", "pass: an appliance that runs has them"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := house(t)
			c.spoil(t, &cfg)
			checks := doctor{cfg: cfg}.examine(t.Context())
			if got := of(checks, c.subject); !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
				t.Errorf("%s: %q, want %q", c.subject, got, c.want)
			}
			for _, k := range checks {
				if (k.Status == api.Pass) != (k.Next == "") || k.Text == "" {
					t.Errorf("%+v, want a next move with all that does not pass, and only with that", k)
				}
			}
		})
	}
}

func TestDoctorOfABadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.yaml")
	if err := os.WriteFile(file, []byte("provisioning: {interfaces: [{name: lo}]}\ndhcp: {mode: maybe}\ntftp: {port: 0}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := of(Doctor(t.Context(), file), "configuration")
	if !strings.Contains(got, `fail: dhcp.mode: "maybe"`) || !strings.Contains(got, "fail: tftp.port: 0") {
		t.Errorf("Doctor() = %q, want both mistakes", got)
	}
}

func TestListeners(t *testing.T) {
	const table = "   sl  local_address rem_address   st tx_queue rx_queue\n" +
		"  17: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n" +
		"  17: 0100000A:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n" +
		"  18: 00000000:0044 00000000:0043 07\n"
	if got := listeners(table, 67); got != 2 {
		t.Errorf("listeners(67) = %d, want 2", got)
	}
}

func TestDoctorNamesOtherServers(t *testing.T) {
	heardBoot := dhcpd.Overheard{Time: time.Now(), Interface: "br0", Server: netip.MustParseAddr("10.77.0.2"), Addr: netip.MustParseAddr("10.77.0.100"), File: "pxelinux.0"}
	lease, us := heardBoot, heardBoot
	lease.File = ""
	us.Addr, us.Class, us.File, us.TFTP = netip.Addr{}, "PXEClient", "snponly.efi", "10.77.0.2"
	for name, c := range map[string]struct {
		heard dhcpd.Overheard
		deaf  string
		mode  string
		want  string
	}{
		"one with a boot file":     {heard: heardBoot, mode: "proxy", want: `fail: another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`},
		"the one that boots, then": {heard: heardBoot, mode: "off", want: `pass: 10.77.0.2 on br0, last heard 0s ago, which tells machines to boot "pxelinux.0"`},
		"a second pxectl":          {heard: us, mode: "proxy", want: "fail: another pxectl, 10.77.0.2 on br0"},
		"one beside the proxy":     {heard: lease, mode: "proxy", want: "pass: 10.77.0.2 on br0, last heard 0s ago, which tells machines to boot nothing"},
		"one beside our server":    {heard: lease, mode: "server", want: "warn: 10.77.0.2 on br0 hands out addresses, and so do we"},
		"none":                     {mode: "proxy", want: "pass: none was heard"},
		"deaf":                     {mode: "proxy", deaf: "no permission", want: "warn: cannot be heard: no permission"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &neighbours{log: slog.New(slog.DiscardHandler), note: func(inventory.Event) {}, deaf: c.deaf}
			if c.heard.Server.IsValid() {
				n.heard(c.heard)
			}
			checks := doctor{cfg: Config{DHCP: DHCP{Mode: c.mode}}, neighbours: n}.otherServers(t.Context())
			if got := of(checks, "other DHCP servers"); !strings.HasPrefix(got, c.want) || len(checks) != 1 {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestSecondAppliance is the helper process that plays another pxectl on another host, until its input ends.
func TestSecondAppliance(t *testing.T) {
	if os.Getenv("APPLIANCE_TEST_SECOND") == "" {
		return // not skipped: nothing is left untested
	}
	s, err := dhcpd.Listen(dhcpd.Config{
		Interfaces: []dhcpd.Interface{{Name: "eth0", Addr: netip.MustParseAddr("10.77.0.2")}},
		Decide:     bootPlane{engine: newEngine(t), addresses: &addresses{list: neighbourTable}, http: 8080}.dhcp,
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

// newEngine is an engine that knows nothing and takes in everybody.
func newEngine(t *testing.T) *deploy.Engine {
	t.Helper()
	db, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	e, err := deploy.New(deploy.Config{Store: db, Key: nonce.Key("0123456789abcdef0123456789abcdef"), Policy: deploy.PolicyApprove, Log: slog.New(slog.DiscardHandler)})
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
		if got = of(checks, "other DHCP servers"); err != nil || time.Now().After(end) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
}

// The doctor of a running appliance, over its socket as the command asks it, with a rival on the wire.
func TestDoctorOfARunningAppliance(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	s := newSite(t)
	s.bmc.Set(true)
	for i, address := range []string{"192.0.2.51", "192.0.2.52"} {
		if _, err := s.engine.AddMachine(t.Context(), "test", deploy.NewMachine{
			Name: fmt.Sprintf("m%d", i+1), UUID: fmt.Sprintf("4c4c4544-0000-1000-8000-00000000000%d", i), BMC: deploy.BMCEdit{Address: &address},
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
			if got = of(checks, subject); err == nil && strings.HasPrefix(got, want) {
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
		"other DHCP servers": "warn: none hands out addresses, and dhcp.mode proxy needs one", "interface br0": "pass: 10.77.0.1", "ports": "pass: all are open",
		"ramdisk": "pass: amd64", "images": "warn: there is none", "BMCs": "pass: 2 of 2 answer", "flight recorder": "pass: ", "permissions": "pass: ",
	} {
		if got := of(checks, subject); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", subject, got, want)
		}
	}
	otherServer(t, "--dhcp-boot=pxelinux.0") // nobody boots: the doctor asks
	until("other DHCP servers", `fail: another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`)
	named := false
	for end := time.Now().Add(time.Minute); !named && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		events, err := s.engine.Events(0, "", 1000)
		named = err == nil && strings.Contains(fmt.Sprint(events), "another DHCP server, 10.77.0.2 on br0, tells machines to boot")
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

// A stock dnsmasq pings an address for three seconds before it offers it: it is heard at the first run.
func TestDoctorHearsASlowServer(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq")
	s := newSite(t)
	otherServer(t, slowly)
	remote, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := remote.Doctor(t.Context())
	if got, want := of(checks, "other DHCP servers"), "pass: 10.77.0.2 on br0"; err != nil || !strings.HasPrefix(got, want) {
		t.Errorf("beside a dnsmasq that pings first: %q, %v, want %q", got, err, want)
	}
}
