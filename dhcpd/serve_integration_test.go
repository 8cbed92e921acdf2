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

// script writes a hook for a DHCP client, which sets the address and writes what the client was told to out.
func script(t *testing.T) (hook, out string) {
	t.Helper()
	dir := t.TempDir()
	hook, out = filepath.Join(dir, "hook"), filepath.Join(dir, "out")
	// The hook writes to out last: what stands there has been done.
	text := "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\n" +
		"case $reason in BOUND|REBOOT) ip addr add $new_ip_address/24 dev $interface;; esac\nenv >> " + out +
		"\nexit 0\n"
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
	// USR1 makes udhcpc renew. TERM makes it release, because of -R.
	r.mu.Lock()
	before := len(r.seen)
	r.mu.Unlock()
	until(t, "udhcpc has its address",
		func() bool { return strings.Contains(h.Run(t, "ip", "addr", "show", "eth0"), "10.77.0.50") })
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	until(t, "udhcpc renews", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.seen[before:],
			func(s string) bool { return strings.Contains(s, "ACK 10.77.0.50") })
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.saw(t, "10.77.0.50 given back")
	until(t, "the lease is gone", func() bool { return len(r.Leases()) == 0 })
	told, _ := os.ReadFile(out)
	for _, want := range []string{
		"ip=10.77.0.50", "hostname=reserved", "domain=rack.example",
		"router=10.77.0.254", "dns=10.77.0.1 10.77.0.2", "lease=7200",
		"staticroutes=10.9.0.0/16 10.77.0.253 0.0.0.0/0 10.77.0.254", "mtu=9000", "serverid=10.77.0.1",
	} {
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
	args := []string{
		"-1", "-v", "-sf", hook, "-lf", filepath.Join(dir, "leases"), "-pf",
		filepath.Join(dir, "pid"), "-cf", "/dev/null", "eth0",
	}
	// dhclient runs in the foreground as our child, so that we can wait for its end and need no pid file.
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
	until(t, "dhclient has written its lease", func() bool { // only after its hook
		kept, _ := os.ReadFile(filepath.Join(dir, "leases"))
		return strings.Contains(string(kept), "fixed-address 10.77.0.100;") &&
			strings.HasSuffix(string(kept), "}\n")
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
	if got := r.seen[before:]; len(got) != 1 || !strings.Contains(got[0], "REQUEST from other") ||
		!strings.Contains(got[0], "ACK 10.77.0.100") {
		t.Errorf("after a restart, dhclient's packets were %q, want one REQUEST", got)
	}
	r.mu.Unlock()
	h.Run(t, "dhclient", append([]string{"-r"}, args...)...)
	r.saw(t, "10.77.0.100 given back")
	told, _ := os.ReadFile(out)
	for _, want := range []string{
		"new_ip_address=10.77.0.100", "new_subnet_mask=255.255.255.0",
		"new_routers=10.77.0.254", "new_domain_name=rack.example", "new_dhcp_lease_time=60",
	} {
		if !strings.Contains(string(told), want+"\n") {
			t.Errorf("dhclient was not told %q; it was told:\n%s", want, told)
		}
	}
}

// udhcpc -a declines an address that another host answers for, and takes the next one.
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
	if out := h.Run(t, "sh", "-c", "udhcpc -i eth0 -n -q -t 5 -T 1 -s /bin/true 2>&1"); !strings.Contains(out,
		"lease of 10.77.0.101 obtained") {
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

var received = regexp.MustCompile(`received packets: (\d+)\s+drops: (\d+)`)

// perfdhcp acts as a relay for 2000 machines. It misses at most one answer in a hundred, and no machine gets
// two addresses.
func TestPerfdhcp(t *testing.T) {
	testnet.Need(t, "ip", "perfdhcp")
	p := Plan{LeaseTime: time.Hour, UnknownShare: 100, Subnets: []Subnet{{
		Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		Pools:  []leases.Range{{First: ip("10.77.1.0"), Last: ip("10.77.40.255")}},
	}}}
	r := newRack(t, p)
	h := testnet.NewHost(t, "load", "10.77.0.200/16", "")
	out := h.Run(t, "sh", "-c",
		"perfdhcp -4 -l eth0 -r 300 -R 2000 -n 600 -d 30 -W 3000000 "+us+" 2>&1 || true")
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

// A lease is on the disk before its client is told.
func TestServerWritesBeforeItAnswers(t *testing.T) {
	testnet.Need(t, "ip", "udhcpc")
	r := newRack(t, short())
	h := testnet.NewHost(t, "client", "", alice)
	h.Run(t, "udhcpc", "-i", "eth0", "-n", "-q", "-s", "/bin/true")
	// A power cut would leave the file as it is now. The server does not get to write to it again.
	raw, err := os.ReadFile(r.cfg.Leases.File)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := leases.Open(leases.Config{
		Path:    copied,
		Subnets: []leases.Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/24")}},
		Log:     discard,
		Now:     time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	mac, _ := net.ParseMAC(alice)
	if l, ok := x.At(ip("10.77.0.100")); !ok || l.MAC.String() != mac.String() {
		t.Errorf("on the disk is %+v, want the lease that udhcpc has", l)
	}
}
