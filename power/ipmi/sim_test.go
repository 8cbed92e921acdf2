package ipmi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi/lan"
	"github.com/pxectl/pxectl/power/powertest"
)

// chassisControl is the script that ipmi_sim runs to read or change the machine: "get power boot" or "set
// power 1". The machine is three files beside it: power, boot and restarts. A cycle comes as off and, some
// time later, on.
const chassisControl = `#!/bin/sh
cd "$1" || exit 1
verb=$2
shift 2
put() { echo "$2" >"$1.new" && mv "$1.new" "$1"; }
while [ $# -gt 0 ]; do
	case $verb in
	get) echo "$1:$(cat "$1")"; shift ;;
	set)
		case $1 in
		power)
			was=$(cat power)
			put power "$2"
			[ "$was$2" = 01 ] && put restarts $(( $(cat restarts) + 1 )) ;;
		boot) put boot "$2" ;;
		shutdown) put power 0 ;;
		reset) put restarts $(( $(cat restarts) + 1 )) ;;
		esac
		shift 2 ;;
	esac
done
`

const lanConf = `name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
    %s
  endlan
  chassis_control "%s %s"
  sol "tcp:%s" 115200 history=4000 historyfru=10
  user 1 true "" "test" user 10 none md2 md5 straight
  user 2 true "%s" "%s" admin 10 none md2 md5 straight
`

const simEmu = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

// sim is Debian's ipmi_sim with a machine made of files.
type sim struct{ dir, addr string }

func newSim(t testing.TB, serial string) *sim {
	t.Helper()
	return newSimWith(t, serial, "")
}

// newSimWith has one more line in its LAN configuration.
func newSimWith(t testing.TB, serial, line string) *sim {
	t.Helper()
	s := &sim{dir: t.TempDir(), addr: nobodyPort(t)}
	addr := netip.MustParseAddrPort(s.addr)
	for name, text := range map[string]string{
		"control": chassisControl, "sim.emu": simEmu, "power": "0\n", "boot": "none\n", "restarts": "0\n",
		"lan.conf": fmt.Sprintf(lanConf, addr.Port(), line, s.path("control"), s.dir, serial, admin,
			powertest.Password),
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(s.path("state"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ipmi_sim", "-c", s.path("lan.conf"), "-f", s.path("sim.emu"), "-s", s.path("state"),
		"-n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("ipmi_sim said: %s", out.String())
		}
	})
	b := s.open(t, powertest.Password)
	poll(t, "ipmi_sim answers", func() bool {
		_, err := b.Power(t.Context())
		return err == nil || line != "" && errors.Is(err, lan.ErrKey)
	})
	return s
}

func (s *sim) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sim) open(t testing.TB, password string) power.BMC {
	// ipmi_sim runs a shell for each command, and does not answer a command that is sent again meanwhile. On
	// a busy machine that takes a second.
	d := &Driver{Timeout: 5 * time.Second, Backoff: 5 * time.Millisecond}
	return open(t, d, power.Target{Address: s.addr, User: admin, Password: password})
}

func (s *sim) read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (s *sim) rig(t testing.TB) powertest.Rig {
	return powertest.Rig{
		On: func() bool { return s.read(t, "power") == "1" },
		Set: func(on bool) {
			text := map[bool]string{true: "1\n", false: "0\n"}[on]
			if err := os.WriteFile(s.path("power"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		Restarts: func() int {
			n, err := strconv.Atoi(s.read(t, "restarts"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
		Override: func() power.Boot {
			word := s.read(t, "boot")
			if word == "default" { // ipmi_sim's word for the disk
				word = "disk"
			}
			return power.Boot{Device: power.Device(word)}
		},
		WrongPassword: func() power.BMC { return s.open(t, powertest.WrongPassword) },
		Silent: func() power.BMC {
			return open(t, quick(), power.Target{
				Address: nobody(t), User: admin, Password: powertest.Password,
			})
		},
		LosesBootFlags: "ipmi_sim 2.0.33 drops the valid, persistent and EFI bits",
	}
}

// nobodyPort is a port that was free a moment ago.
func nobodyPort(t testing.TB) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().String()
}

func TestSuiteAgainstIPMISim(t *testing.T) {
	testnet.Need(t, "ipmi_sim")
	powertest.Run(t, func(t testing.TB) (power.BMC, powertest.Rig) {
		s := newSim(t, "127.0.0.1:1")
		return s.open(t, powertest.Password), s.rig(t)
	})
}

// ipmitool asks the BMC at addr. Suite 3 is named, since asking for the suites takes ipmi_sim ten seconds.
func ipmitool(t testing.TB, addr, name, suite string, args ...string) string {
	t.Helper()
	ap := netip.MustParseAddrPort(addr)
	cmd := exec.Command("ipmitool", append([]string{
		"-I", "lanplus", "-C", suite, "-L", "OPERATOR", "-E",
		"-H", ap.Addr().String(), "-p", strconv.Itoa(int(ap.Port())), "-U", name,
	}, args...)...)
	cmd.Env = append(os.Environ(), "IPMI_PASSWORD="+powertest.Password)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ipmitool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ipmitool reads what our driver sets, and the other way round.
func TestIPMIToolAgrees(t *testing.T) {
	testnet.Need(t, "ipmitool", "ipmi_sim")
	for _, c := range []struct {
		name, suite, user string
		make              func(testing.TB) (addr string, b power.BMC, rig powertest.Rig)
	}{
		{"go-ipmi server, suite 3", "3", user, func(t testing.TB) (string, power.BMC, powertest.Rig) {
			r := newRack(t, "127.0.0.1:0")
			return r.addr, r.open(t, quick(), powertest.Password), r.rig(t)
		}},
		{"go-ipmi server, suite 17", "17", user, func(t testing.TB) (string, power.BMC, powertest.Rig) {
			r := newRack(t, "127.0.0.1:0")
			return r.addr, r.open(t, quick(), powertest.Password), r.rig(t)
		}},
		{"ipmi_sim", "3", admin, func(t testing.TB) (string, power.BMC, powertest.Rig) {
			s := newSim(t, "127.0.0.1:1")
			return s.addr, s.open(t, powertest.Password), s.rig(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, b, rig := c.make(t)
			tool := func(args ...string) string { return ipmitool(t, addr, c.user, c.suite, args...) }
			for _, on := range []bool{true, false} {
				word := map[bool]string{true: "on", false: "off"}[on]
				if err := b.Do(t.Context(), power.Action(word)); err != nil {
					t.Fatal(err)
				}
				if got := tool("chassis", "power", "status"); !strings.Contains(got, "is "+word) {
					t.Errorf("after Do(%s) ipmitool reads %q", word, got)
				}
			}
			for _, on := range []bool{true, false} {
				tool("chassis", "power", map[bool]string{true: "on", false: "off"}[on])
				poll(t, "the driver to read what ipmitool did", func() bool {
					got, err := b.Power(t.Context())
					return err == nil && got == on
				})
			}
			if rig.LosesBootFlags == "" {
				bootFlagsAgree(t, b, tool)
			}
		})
	}
}

func bootFlagsAgree(t *testing.T, b power.BMC, tool func(...string) string) {
	for _, c := range []struct {
		boot    power.Boot
		options string   // as ipmitool sets it
		lines   []string // as ipmitool reads it
	}{
		{
			power.Boot{Device: power.DevicePXE, EFI: true},
			"efiboot",
			[]string{"Boot Flag Valid", "only next boot", "EFI boot", "Force PXE"},
		},
		{
			power.Boot{Device: power.DevicePXE, EFI: true, Persistent: true},
			"efiboot,persistent",
			[]string{"Boot Flag Valid", "apply to all future boots", "EFI boot", "Force PXE"},
		},
		{
			power.Boot{Device: power.DeviceDisk},
			"",
			[]string{"Boot Flag Valid", "only next boot", "legacy", "Hard-Drive"},
		},
		{
			power.Boot{Device: power.DeviceDisk, Persistent: true},
			"persistent",
			[]string{"Boot Flag Valid", "all future boots", "legacy", "Hard-Drive"},
		},
		{power.Boot{Device: power.DeviceCDROM}, "", []string{"Boot Flag Valid", "CD/DVD"}},
		{
			power.Boot{Device: power.DeviceBIOS, EFI: true},
			"efiboot",
			[]string{"Boot Flag Valid", "EFI boot", "BIOS Setup"},
		},
		{power.Boot{Device: power.DeviceNone}, "", []string{"Boot Flag Invalid"}},
	} {
		if err := b.SetBoot(t.Context(), c.boot); err != nil {
			t.Fatal(err)
		}
		read := tool("chassis", "bootparam", "get", "5")
		for _, line := range c.lines {
			if !strings.Contains(read, line) {
				t.Errorf("after SetBoot(%s) ipmitool does not say %q but\n%s", c.boot, line, read)
			}
		}
		// The other way round, over flags that differ in every bit.
		if err := b.SetBoot(t.Context(),
			power.Boot{
				Device: power.DeviceCDROM, Persistent: !c.boot.Persistent,
				EFI: !c.boot.EFI,
			}); err != nil {
			t.Fatal(err)
		}
		args := []string{"chassis", "bootdev", string(c.boot.Device)}
		if c.options != "" {
			args = append(args, "options="+c.options)
		}
		tool(args...)
		if got, err := b.Boot(t.Context()); err != nil || got != c.boot {
			t.Errorf("after ipmitool %s Boot() = %s, %v, want %s", strings.Join(args, " "), got, err, c.boot)
		}
	}
}

// The console works both ways with a BMC that is not our library's.
func TestConsoleOfIPMISim(t *testing.T) {
	testnet.Need(t, "ipmi_sim")
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	s := newSim(t, port.Addr().String())
	serial, err := port.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer serial.Close()
	keys := &safeBuffer{}
	go func() {
		buf := make([]byte, 256)
		for {
			n, err := serial.Read(buf)
			if err != nil {
				return
			}
			_, _ = keys.Write(buf[:n])
		}
	}()
	out := &safeBuffer{}
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- s.open(t, powertest.Password).(power.Console).Console(t.Context(), in, out) }()
	poll(t, "the prompt", func() bool {
		_, err := serial.Write([]byte("login: ")) // what the machine says before anybody listens is gone
		return err == nil && strings.Contains(out.String(), "login: ")
	})
	if _, err := typed.Write([]byte("root\r")); err != nil {
		t.Fatal(err)
	}
	poll(t, "the keys at the machine", func() bool { return strings.Contains(keys.String(), "root\r") })
	_ = typed.Close()
	if err := <-done; err != nil {
		t.Errorf("Console() = %v, want nil", err)
	}
	t.Logf("prompt, five keys and goodbye in %s", time.Since(start))

	ctx, cancel := context.WithCancel(t.Context())
	heard := &safeBuffer{}
	go func() { done <- s.open(t, powertest.Password).(power.Console).Listen(ctx, heard) }()
	poll(t, "a panic at the listener", func() bool {
		_, err := serial.Write([]byte("Kernel panic\r\n"))
		return err == nil && strings.Contains(heard.String(), "Kernel panic")
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Listen() when ctx ends = %v, want nil", err)
	}
}
