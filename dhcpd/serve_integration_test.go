package dhcpd

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/internal/testnet"
)

// rack is a provisioning network on which we are the DHCP server.
type rack struct {
	*Server
	mu   sync.Mutex
	seen []string
}

// newRack runs a server on br0, 10.77.0.1, which knows no machine.
func newRack(t *testing.T, plan Plan) *rack {
	t.Helper()
	return newRackFor(t, plan, nil)
}

func newRackFor(t *testing.T, plan Plan, known func(Client) bool) *rack {
	t.Helper()
	testnet.Bridge(t, us+"/24")
	r := &rack{}
	s, err := Listen(Config{
		Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Decide: boots, Log: discard,
		Leases: &LeaseConfig{Plan: plan, File: filepath.Join(t.TempDir(), "leases"), Known: known},
		Observe: func(s Seen) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.seen = append(r.seen, s.String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	t.Cleanup(func() {
		if t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Logf("the server reported:\n%s", strings.Join(r.seen, "\n"))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run() = %v, want nil after the context ended", err)
		}
	})
	return r
}

// saw waits until a packet with that text was reported.
func (r *rack) saw(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r.mu.Lock()
		ok := slices.ContainsFunc(r.seen, func(s string) bool { return strings.Contains(s, want) })
		r.mu.Unlock()
		if ok {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Fatalf("no packet with %q within %s; there were:\n%s", want, patience, strings.Join(r.seen, "\n"))
}

// short is a plan whose leases last a minute, so that clients renew soon.
func short() Plan {
	p := testPlan()
	p.UnknownShare = 100
	p.Subnets[0].Options.LeaseTime = time.Minute
	return p
}

// script is a client's hook that writes what it was told, and sets the address.
func script(t *testing.T) (hook, out string) {
	t.Helper()
	dir := t.TempDir()
	hook, out = filepath.Join(dir, "hook"), filepath.Join(dir, "out")
	// It tells last: what is in out has been done.
	text := "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\n" +
		"case $reason in BOUND|REBOOT) ip addr add $new_ip_address/24 dev $interface;; esac\nenv >> " + out + "\nexit 0\n"
	if err := os.WriteFile(hook, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return hook, out
}

func TestUdhcpc(t *testing.T) {
	testnet.Need(t, "ip", "udhcpc")
	r := newRack(t, short())
	h := testnet.NewHost(t, "udhcpc", "", "52:54:00:00:00:aa")
	hook, out := script(t)
	cmd := h.Command("udhcpc", "-f", "-i", "eth0", "-R", "-O", "121", "-O", "mtu", "-s", hook)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	r.saw(t, "ACK 10.77.0.50")
	// USR1: renew. TERM with -R: release.
	r.mu.Lock()
	before := len(r.seen)
	r.mu.Unlock()
	until(t, "udhcpc has its address", func() bool { return strings.Contains(h.Run(t, "ip", "addr", "show", "eth0"), "10.77.0.50") })
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	until(t, "udhcpc renews", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.seen[before:], func(s string) bool { return strings.Contains(s, "ACK 10.77.0.50") })
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.saw(t, "10.77.0.50 given back")
	until(t, "the lease is gone", func() bool { return len(r.Leases()) == 0 })
	told, _ := os.ReadFile(out)
	for _, want := range []string{"ip=10.77.0.50", "hostname=reserved", "domain=rack.example", "router=10.77.0.254", "dns=10.77.0.1 10.77.0.2", "lease=7200", "staticroutes=10.9.0.0/16 10.77.0.253 0.0.0.0/0 10.77.0.254", "mtu=9000", "serverid=10.77.0.1"} {
		if !strings.Contains(string(told), want+"\n") {
			t.Errorf("udhcpc was not told %q; it was told:\n%s", want, told)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// dhclient gets a lease, asks for it again after a restart (init-reboot), and gives it back.
func TestDhclient(t *testing.T) {
	testnet.Need(t, "ip", "dhclient")
	r := newRack(t, short())
	h := testnet.NewHost(t, "dhclient", "", alice)
	hook, out := script(t)
	dir := t.TempDir()
	args := []string{"-1", "-v", "-sf", hook, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "-cf", "/dev/null", "eth0"}
	// In the foreground, as a child of ours: its end is an event, and its pid is not to be read from a file.
	begin := func(reason string) *exec.Cmd {
		t.Helper()
		cmd := h.Command("dhclient", append([]string{"-d"}, args...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		until(t, "dhclient told its hook "+reason, func() bool {
			told, _ := os.ReadFile(out)
			return strings.Contains(string(told), "reason="+reason+"\n")
		})
		return cmd
	}
	first := begin("BOUND")
	r.saw(t, "ACK 10.77.0.100")
	until(t, "dhclient has written its lease", func() bool { // only after it told its hook
		kept, _ := os.ReadFile(filepath.Join(dir, "leases"))
		return strings.Contains(string(kept), "fixed-address 10.77.0.100;") && strings.HasSuffix(string(kept), "}\n")
	})
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	r.mu.Lock()
	before := len(r.seen)
	r.mu.Unlock()
	begin("REBOOT")
	r.mu.Lock()
	if got := r.seen[before:]; len(got) != 1 || !strings.Contains(got[0], "REQUEST from other") || !strings.Contains(got[0], "ACK 10.77.0.100") {
		t.Errorf("after a restart, dhclient's packets were %q, want one REQUEST", got)
	}
	r.mu.Unlock()
	h.Run(t, "dhclient", append([]string{"-r"}, args...)...)
	r.saw(t, "10.77.0.100 given back")
	told, _ := os.ReadFile(out)
	for _, want := range []string{"new_ip_address=10.77.0.100", "new_subnet_mask=255.255.255.0", "new_routers=10.77.0.254", "new_domain_name=rack.example", "new_dhcp_lease_time=60"} {
		if !strings.Contains(string(told), want+"\n") {
			t.Errorf("dhclient was not told %q; it was told:\n%s", want, told)
		}
	}
}

// udhcpc -a declines an address that somebody else answers for; the next one is its.
func TestDeclineByARealClient(t *testing.T) {
	testnet.Need(t, "ip", "busybox")
	r := newRack(t, short())
	testnet.NewHost(t, "squatter", "10.77.0.100/24", "")
	h := testnet.NewHost(t, "careful", "", alice)
	hook, _ := script(t)
	cmd := h.Command("busybox", "udhcpc", "-f", "-q", "-a", "-i", "eth0", "-s", hook, "-A", "1")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	r.saw(t, "10.77.0.100 in use by somebody else, says the client")
	r.saw(t, "ACK 10.77.0.101")
	if all := r.Leases(); len(all) != 2 || all[0].State != leases.Declined || all[1].State != leases.Bound {
		t.Errorf("leases are %+v, want one declined and one bound", all)
	}
}

func TestProbe(t *testing.T) {
	testnet.Need(t, "ip", "udhcpc")
	p := short()
	p.Probe = true
	r := newRack(t, p)
	testnet.NewHost(t, "squatter", "10.77.0.100/24", "")
	h := testnet.NewHost(t, "client", "", alice)
	if out := h.Run(t, "sh", "-c", "udhcpc -i eth0 -n -q -t 5 -T 1 -s /bin/true 2>&1"); !strings.Contains(out, "lease of 10.77.0.101 obtained") {
		t.Errorf("udhcpc says\n%s, want a lease of 10.77.0.101, since somebody has .100", out)
	}
	if all := r.Leases(); len(all) != 2 || all[0].State != leases.Declined {
		t.Errorf("leases are %+v, want .100 declined", all)
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// relays are the relays of the field: their arguments, and what they say when they are ready.
var relays = map[string]struct {
	args  []string
	ready string
}{
	"dnsmasq":  {[]string{"--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--dhcp-relay=10.78.0.1,10.77.0.1"}, "DHCP relay"},
	"dhcrelay": {[]string{"-4", "-d", "-a", "-iu", "eth0", "-id", "far0", "10.77.0.1"}, "Sending on   Socket"},
}

// behind is a host on a network of its own, 10.78.0.0/24, behind a router with a DHCP relay.
func behind(t *testing.T, relay string) testnet.Host {
	t.Helper()
	router := testnet.NewHost(t, "router", "10.77.0.9/24", "")
	command(t, "ip", "netns", "add", "far")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "far").Run() })
	command(t, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", "far")
	command(t, "ip", "link", "set", "far0", "netns", "router")
	router.Run(t, "ip", "addr", "add", "10.78.0.1/24", "dev", "far0")
	router.Run(t, "ip", "link", "set", "far0", "up")
	router.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	command(t, "ip", "route", "add", "10.78.0.0/24", "via", "10.77.0.9")
	start(t, router.Command(relay, relays[relay].args...), relays[relay].ready)
	far := testnet.Host{Name: "far"}
	far.Run(t, "ip", "link", "set", "lo", "up")
	far.Run(t, "ip", "link", "set", "eth0", "up")
	return far
}

// Behind a router with a DHCP relay: the lease, whatever the client's broadcast flag, and a renewal that goes
// round the relay.
func TestRelays(t *testing.T) {
	for relay := range relays {
		for name, flag := range map[string][]string{"unicast": nil, "broadcast": {"-B"}} {
			t.Run(relay+"/"+name, func(t *testing.T) {
				testnet.Need(t, "ip", "udhcpc", relay)
				r := newRack(t, short())
				far := behind(t, relay)
				hook, _ := script(t)
				cmd := far.Command("udhcpc", append([]string{"-f", "-i", "eth0", "-R", "-s", hook}, flag...)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
				until(t, "a lease", func() bool { return len(r.Leases()) == 1 })
				until(t, "the address", func() bool { return strings.Contains(far.Run(t, "ip", "addr", "show", "eth0"), "10.78.0.100") })
				far.Run(t, "ip", "route", "add", "default", "via", "10.78.0.1")
				was := r.Leases()[0].Expires
				time.Sleep(1100 * time.Millisecond) // leases are counted in seconds
				if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
				until(t, "a renewal", func() bool { return r.Leases()[0].Expires.After(was) })
			})
		}
	}
}

// A proxy's offer has no address that a relay could send it to. It reaches the client all the same, whatever
// that said of broadcasts.
func TestProxyBehindRelays(t *testing.T) {
	for relay := range relays {
		for name, flags := range map[string]string{"unicast": "0000", "broadcast": "8000"} {
			t.Run(relay+"/"+name, func(t *testing.T) {
				testnet.Need(t, "ip", "dnsmasq", relay)
				t.Setenv("DHCPD_TEST_FLAGS", flags)
				newSite(t, boots)
				far := behind(t, relay)
				far.Run(t, "ip", "addr", "add", "10.78.0.60/24", "dev", "eth0")
				far.Run(t, "ip", "route", "add", "default", "dev", "eth0") // for 255.255.255.255
				got := playBoth(t, far, "rom-bios-discover", "rom-bios-discover", ":68", "255.255.255.255:67", func(heard []string) bool { return len(heard) > 0 })
				want := `yiaddr=0.0.0.0 class="PXEClient" file="bios-pxe.nbp" opt67="bios-pxe.nbp"`
				if len(got) != 1 || !strings.HasPrefix(got[0], "OFFER from ") || !strings.HasSuffix(got[0], want) {
					t.Errorf("the client heard\n%q, want one OFFER with\n%q", got, want)
				}
			})
		}
	}
}

var received = regexp.MustCompile(`received packets: (\d+)\s+drops: (\d+)`)

// perfdhcp, as a relay for a few thousand machines: whole exchanges, nothing lost, no
// address twice.
func TestPerfdhcp(t *testing.T) {
	testnet.Need(t, "ip", "perfdhcp")
	p := Plan{LeaseTime: time.Hour, UnknownShare: 100, Subnets: []Subnet{{
		Subnet: netip.MustParsePrefix("10.77.0.0/16"), Pools: []leases.Range{{First: ip("10.77.1.0"), Last: ip("10.77.40.255")}},
	}}}
	r := newRack(t, p)
	h := testnet.NewHost(t, "load", "10.77.0.200/16", "")
	out := h.Run(t, "sh", "-c", "perfdhcp -4 -l eth0 -r 300 -R 2000 -n 600 -d 30 -W 3000000 "+us+" 2>&1 || true")
	rows := received.FindAllStringSubmatch(out, -1)
	if len(rows) != 2 {
		t.Fatalf("perfdhcp says\n%s", out)
	}
	for _, row := range rows {
		got, _ := strconv.Atoi(row[1])
		drops, _ := strconv.Atoi(row[2])
		if got < 500 || drops > got/100 {
			t.Errorf("perfdhcp received %d packets and missed %d:\n%s", got, drops, out)
		}
	}
	seen := map[string]netip.Addr{}
	for _, l := range r.Leases() {
		if other, ok := seen[l.MAC.String()]; ok {
			t.Errorf("%v has %v and %v", l.MAC, other, l.Addr)
		}
		seen[l.MAC.String()] = l.Addr
	}
	if len(seen) < 500 {
		t.Errorf("%d leases, want at least 500", len(seen))
	}
}

// What a client was told is on the disk by then.
func TestServerWritesBeforeItAnswers(t *testing.T) {
	testnet.Need(t, "ip", "udhcpc")
	r := newRack(t, short())
	h := testnet.NewHost(t, "client", "", alice)
	h.Run(t, "udhcpc", "-i", "eth0", "-n", "-q", "-s", "/bin/true")
	// What a power cut would leave: the file as it is now, without our say in it.
	raw, err := os.ReadFile(r.cfg.Leases.File)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := leases.Open(leases.Config{Path: copied, Subnets: []leases.Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/24")}}, Log: discard, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	mac, _ := net.ParseMAC(alice)
	if l, ok := x.At(ip("10.77.0.100")); !ok || l.MAC.String() != mac.String() {
		t.Errorf("on the disk is %+v, want the lease that udhcpc has", l)
	}
}
