// Package testnet gives tests a network of their own: the test binary runs itself again inside a fresh
// network and mount namespace, and other hosts on that network are further namespaces inside it. The kernel
// removes all of it with the last process, so a killed test leaves nothing behind, and the host's network is
// never touched.
//
// It is for tests and benchmarks only and needs root and iproute2. A plain "go test" skips the
// tests that ask for it, by name and with the reason; "make test" runs them.
package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// All is the environment variable that asks for the tests that need root, other programs, or minutes.
const All = "PXECTL_TEST"

const inside = "PXECTL_TEST_INSIDE"

// Main is a package's TestMain. It runs the tests inside a private namespace when PXECTL_TEST=all and the
// user is root, and otherwise as they are.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" || os.Getenv(All) == "all" && os.Geteuid() == 0 {
		Isolate()
	}
	code := m.Run()
	if n := skipped.Load(); n > 0 {
		// `go test` in the directory of a package prints this. With a list of packages, it prints nothing of
		// those that pass.
		fmt.Printf("%d tests were skipped; `make test` runs all\n", n)
	}
	os.Exit(code)
}

// skipped counts the tests that Gate skipped.
var skipped atomic.Int64

// Isolate returns inside private network and mount namespaces. It runs this program again in them, with the
// same arguments, and then ends the calling process with that one's exit code.
func Isolate() {
	if os.Getenv(inside) != "" {
		if err := settle(); err != nil {
			fmt.Fprintln(os.Stderr, "testnet:", err)
			os.Exit(1)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	// The child ends with this process, even when it is killed. The kernel watches the thread that started
	// it.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "testnet: run in a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// settle makes mounts private, gives `ip netns` a directory that nobody outside sees, and brings the loopback
// up.
func settle() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a private /run/netns: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
}

// Need skips the test, with its name and the reason, unless it runs inside the private namespace and every
// named program is installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	Gate(t, programs...)
	if os.Getenv(inside) == "" {
		t.Fatalf("%s: its package has no TestMain that calls testnet.Main", t.Name())
	}
}

// Long skips a test that takes seconds when only short ones are wanted (go test -short).
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		skipped.Add(1)
		t.Skipf("SKIPPED %s: takes seconds; run it with `make test`", t.Name())
	}
}

// Gate is Need for a test that makes its own namespaces.
func Gate(t testing.TB, programs ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Skipped() {
			skipped.Add(1)
		}
	})
	if os.Getenv(All) != "all" {
		t.Skipf("SKIPPED %s: needs root, network namespaces%s; run it with `make test` (%s=all)", t.Name(),
			and(programs), All)
	}
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED %s: needs root", t.Name())
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
}

func and(programs []string) string {
	if len(programs) == 0 {
		return ""
	}
	return " and " + strings.Join(programs, ", ")
}

// A Host is another machine on the test's network: a namespace with one veth interface, eth0, whose other end
// is a port of the bridge br0.
type Host struct{ Name string }

// Bridge makes br0 in the test's own namespace with the given address (CIDR) and removes it when the test
// ends.
func Bridge(t testing.TB, cidr string) {
	t.Helper()
	// forward_delay 0: a port must not swallow the first seconds of DHCP.
	run(t, "ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	t.Cleanup(func() { _ = command("ip", "link", "del", "br0") })
	run(t, "ip", "link", "set", "br0", "up")
	if cidr != "" {
		run(t, "ip", "addr", "add", cidr, "dev", "br0")
	}
}

// NewHost plugs a host into br0. cidr is its address, or "" for none yet; mac is its hardware address, or ""
// for the kernel's choice.
func NewHost(t testing.TB, name, cidr, mac string) Host {
	t.Helper()
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { _ = command("ip", "netns", "del", name) })
	run(t, "ip", "link", "add", "v-"+name, "type", "veth", "peer", "name", "eth0", "netns", name)
	// The kernel removes a namespace's interfaces some time later, and the next host may have this name.
	t.Cleanup(func() { _ = command("ip", "link", "del", "v-"+name) })
	run(t, "ip", "link", "set", "v-"+name, "master", "br0", "up")
	h := Host{Name: name}
	if mac != "" {
		h.Run(t, "ip", "link", "set", "eth0", "address", mac)
	}
	h.Run(t, "ip", "link", "set", "lo", "up")
	h.Run(t, "ip", "link", "set", "eth0", "up")
	if cidr != "" {
		h.Run(t, "ip", "addr", "add", cidr, "dev", "eth0")
	}
	carries(t, "v-"+name)
	carries(t, "br0")
	h.Inside(t, func() { carries(t, "eth0") })
	return h
}

// carries waits until a link carries packets. The kernel notices a carrier some time after the command that
// set the link up has returned. Until then it drops packets without an error.
func carries(t testing.TB, name string) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		link, err := netlink.LinkByName(name)
		if err == nil && link.Attrs().OperState == netlink.OperUp {
			return
		}
		if time.Now().After(end) {
			t.Errorf("link %s carries nothing: %+v, %v", name, link, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Command returns a command that will run on the host.
func (h Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.Name, name}, args...)...)
}

// Run runs a command on the host and returns its output. It fails the test when the command fails.
func (h Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := h.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("on host %s: %s %s: %v\n%s", h.Name, name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Inside calls f on the host's network. Sockets that f opens stay there; goroutines that it starts do not run
// there.
func (h Host) Inside(t testing.TB, f func()) {
	t.Helper()
	there, err := os.Open("/run/netns/" + h.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	entered := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		entered <- err
	}()
	if err := <-entered; err != nil {
		t.Fatalf("enter the network of %s: %v", h.Name, err)
	}
}

// Forge sends UDP packets from any address, not only the host's, to one or all.
func (h Host) Forge(t testing.TB, src, dst netip.AddrPort, payloads ...[]byte) {
	t.Helper()
	h.Inside(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			t.Error(err)
			return
		}
		for _, payload := range payloads {
			p := make([]byte, 28, 28+len(payload))
			p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in lengths and checksum
			copy(p[12:], src.Addr().AsSlice())
			copy(p[16:], dst.Addr().AsSlice())
			binary.BigEndian.PutUint16(p[20:], src.Port())
			binary.BigEndian.PutUint16(p[22:], dst.Port())
			binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
			if err := unix.Sendto(fd, append(p, payload...), 0,
				&unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
				t.Error(err)
			}
		}
	})
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if err := command(name, args...); err != nil {
		t.Fatal(err)
	}
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
