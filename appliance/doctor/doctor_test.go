package doctor

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

// The doctor finds each fault without a running appliance, and names the next move.
func TestDoctorWithoutAnAppliance(t *testing.T) {
	loopback := config.Interface{Name: "lo", Address: netip.MustParseAddr("127.0.0.1")}
	house := func(t *testing.T) config.Config {
		c := config.Defaults()
		c.DataDir = t.TempDir()
		c.API.Socket = filepath.Join(c.DataDir, "s")
		c.Provisioning.Interfaces = []config.Interface{loopback}
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
		spoil         func(t *testing.T, c *config.Config)
		subject, want string
	}{
		"no ramdisk": {func(*testing.T, *config.Config) {}, "ramdisk", "fail: none in "},
		"half a ramdisk": {
			func(t *testing.T, c *config.Config) { write(t, 0o644, c.RamdiskDir(), "amd64", "vmlinuz") },
			"ramdisk", "fail: kernel or ramdisk is missing for amd64",
		},
		"a ramdisk": {func(t *testing.T, c *config.Config) {
			write(t, 0o644, c.RamdiskDir(), "arm64", "vmlinuz")
			write(t, 0o644, c.RamdiskDir(), "arm64", "initrd")
		}, "ramdisk", "pass: arm64"},
		"no image": {func(*testing.T, *config.Config) {}, "images", "warn: there is none to deploy"},
		"an image": {func(t *testing.T, c *config.Config) {
			write(t, 0o644, c.DataDir, "images", strings.Repeat("0", 64), "manifest.json")
		}, "images", "pass: 1"},
		"an open key": {
			func(t *testing.T, c *config.Config) { write(t, 0o644, c.DataDir, "keys", "age.key") },
			"permissions", "fail: ",
		},
		"a key that the group may read": {
			func(t *testing.T, c *config.Config) { write(t, 0o640, c.DataDir, "keys", "age.key") },
			"permissions", "fail: ",
		},
		"an open database": {
			func(t *testing.T, c *config.Config) { write(t, 0o604, c.DataDir, "pxectl.db") }, "permissions",
			"fail: ",
		},
		"a closed one": {
			func(t *testing.T, c *config.Config) { write(t, 0o600, c.DataDir, "pxectl.db") }, "permissions",
			"pass: ",
		},
		"an open password": {func(t *testing.T, c *config.Config) {
			c.BMC.Password, c.Path = "x", filepath.Join(c.DataDir, "appliance.yaml")
			write(t, 0o644, c.Path)
		}, "permissions", "fail: "},
		"a writable tree": {func(t *testing.T, c *config.Config) {
			if err := os.Chmod(c.DataDir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "permissions", "fail: "},
		"an interface gone": {
			func(_ *testing.T, c *config.Config) { c.Provisioning.Interfaces[0].Name = "eno9" },
			"interface eno9", "fail: is not there",
		},
		"an address gone": {func(_ *testing.T, c *config.Config) {
			c.Provisioning.Interfaces[0].Address = netip.MustParseAddr("192.0.2.1")
		}, "interface lo", "fail: no longer has the address 192.0.2.1"},
		"ports free": {func(*testing.T, *config.Config) {}, "ports", "pass: all are free"},
		"a port taken": {func(t *testing.T, c *config.Config) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			c.HTTP.Port = l.Addr().(*net.TCPAddr).Port
		}, "ports", "fail: TCP port "},
		"an appliance has them": {func(t *testing.T, c *config.Config) {
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
			checks := House{Config: cfg}.Examine(t.Context())
			if got := apitest.ChecksOf(checks, c.subject); !strings.HasPrefix(got, c.want) ||
				strings.Contains(got, "\n") {
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

// The next move names the folder that the appliance looks in, and the command that shows an example.
func TestDoctorOfARamdisk(t *testing.T) {
	d := House{Config: config.Config{DataDir: "/data"}}
	if got, want := d.ramdisk().Next,
		"`pxectl ramdisk build --out /data/ramdisk`, with a kernel and its modules "+
			"(`pxectl ramdisk build --help`)"; got != want {
		t.Errorf("next move %q, want %q", got, want)
	}
}

func TestDoctorOfABadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.yaml")
	if err := os.WriteFile(file,
		[]byte("provisioning: {interfaces: [{name: lo}]}\ndhcp: {mode: maybe}\ntftp: {port: 0}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	got := apitest.ChecksOf(File(t.Context(), file), "configuration")
	if !strings.Contains(got, `fail: dhcp.mode: "maybe"`) || !strings.Contains(got, "fail: tftp.port: 0") {
		t.Errorf("File() = %q, want both mistakes", got)
	}
}

// A file that is not there cannot be corrected.
func TestDoctorOfNoConfiguration(t *testing.T) {
	checks := File(t.Context(), "/nonexistent/appliance.yaml")
	if len(checks) != 1 || !strings.Contains(checks[0].Text, "/nonexistent/appliance.yaml: no such file") ||
		!strings.HasPrefix(checks[0].Next, "write it: ") {
		t.Errorf("File() = %+v, want that there is no file, and to write it", checks)
	}
}

// Beside stopping the other program, the doctor names something else that can be done.
func TestDoctorOfTakenPorts(t *testing.T) {
	d := House{Config: config.Defaults()}
	d.Config.Provisioning.Interfaces = []config.Interface{
		{Name: "lo", Address: netip.MustParseAddr("127.0.0.1")},
	}
	got := map[uint16]string{}
	for _, p := range d.wanted() {
		got[p.at.Port()] = p.instead
	}
	want := map[uint16]string{
		4011: "set dhcp.mode to off: UEFI asks at this port and no other", 69: "choose another tftp.port",
		8080: "choose another http.port", 8443: "choose another api.port",
	}
	if !maps.Equal(got, want) {
		t.Errorf("instead of stopping who has a port: %v, want %v", got, want)
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
	heardBoot := dhcpd.Overheard{
		Time: time.Now(), Interface: "br0", Server: netip.MustParseAddr("10.77.0.2"),
		Addr: netip.MustParseAddr("10.77.0.100"), File: "pxelinux.0",
	}
	lease, us := heardBoot, heardBoot
	lease.File = ""
	us.Addr, us.Class, us.File, us.TFTP = netip.Addr{}, "PXEClient", "snponly.efi", "10.77.0.2"
	for name, c := range map[string]struct {
		heard dhcpd.Overheard
		deaf  string
		mode  string
		want  string
	}{
		"one with a boot file": {
			heard: heardBoot,
			mode:  "proxy",
			want:  `fail: another DHCP server, 10.77.0.2 on br0, tells machines to boot "pxelinux.0"`,
		},
		"the one that boots, then": {
			heard: heardBoot,
			mode:  "off",
			want:  `pass: 10.77.0.2 on br0, last heard 0s ago, which tells machines to boot "pxelinux.0"`,
		},
		"a second pxectl": {heard: us, mode: "proxy", want: "fail: another pxectl, 10.77.0.2 on br0"},
		"one beside the proxy": {
			heard: lease,
			mode:  "proxy",
			want:  "pass: 10.77.0.2 on br0, last heard 0s ago, which tells machines to boot nothing",
		},
		"one beside our server": {
			heard: lease, mode: "server", want: "warn: 10.77.0.2 on br0 hands out addresses, and so do we",
		},
		"none": {mode: "proxy", want: "pass: none was heard"},
		"deaf": {mode: "proxy", deaf: "no permission", want: "warn: cannot be heard: no permission"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &rogue.Servers{Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) {}}
			if c.deaf != "" {
				n.Absent(errors.New(c.deaf))
			}
			if c.heard.Server.IsValid() {
				n.Heard(c.heard)
			}
			checks := House{
				Config: config.Config{DHCP: config.DHCP{Mode: c.mode}},
				Rogues: n,
			}.otherServers(t.Context())
			if got := apitest.ChecksOf(checks, "other DHCP servers"); !strings.HasPrefix(got, c.want) ||
				len(checks) != 1 {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
