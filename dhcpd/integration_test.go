package dhcpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

// site is a provisioning network: we are on br0, and on another host a plain dnsmasq hands out addresses and
// knows nothing of booting.
type site struct {
	mu   sync.Mutex
	seen []Seen
}

func newSite(t *testing.T, decide Decider) *site {
	t.Helper()
	testnet.Bridge(t, "10.77.0.1/24")
	lan := testnet.NewHost(t, "lan", "10.77.0.2/24", "")
	// Delete the link by hand: the kernel removes it only some time after its namespace, and the next test
	// has a host of this name, too.
	t.Cleanup(func() { lan.Run(t, "ip", "link", "del", "eth0") })
	leases := filepath.Join(t.TempDir(), "leases")
	dnsmasq := lan.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
		"--no-ping", "--dhcp-range=10.77.0.100,10.77.0.150,10m", "--dhcp-authoritative", "--user=root",
		"--dhcp-leasefile="+leases)
	start(t, dnsmasq, "DHCP, IP range")

	v := &site{}
	s, err := Listen(Config{
		Interfaces: []Interface{{Name: "br0", Addr: ourAddr}},
		Decide:     decide,
		Observe: func(s Seen) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.seen = append(v.seen, s)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run() = %v, want nil after the context ended", err)
			}
		case <-time.After(patience):
			t.Error("Run did not end with its context")
		}
	})
	return v
}

// start runs a program until the test ends, and waits until it says that it is ready.
func start(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan bool, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), ready) {
				select {
				case said <- true:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-drained
		_ = cmd.Wait()
	})
	select {
	case <-said:
	case <-drained:
		t.Fatalf("%s ended before it was ready", cmd.Path)
	case <-time.After(patience):
		t.Fatalf("%s: not ready after %s", cmd.Path, patience)
	}
}

// boots gives every class a boot file of its own, as the wiring code does.
func boots(_ context.Context, c Client) (Boot, bool) {
	if c.Hostname == "left-alone" {
		return Boot{}, false
	}
	return Boot{File: string(c.Class) + ".nbp", URL: "http://10.77.0.1:8080/" + string(c.Class)}, true
}

// patience is how long tests wait for what must come. It is much more than a busy machine needs.
const patience = time.Minute

// packets returns how many packets were reported, with and without an answer.
func (v *site) packets() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen)
}

// capture records all DHCP on the bridge. The returned function waits until there finds all expected packets
// in the capture, since tcpdump may write them late, and returns all packets with their addresses.
func capture(t *testing.T) func(there func([]wire) bool) []wire {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dhcp.pcap")
	tcpdump := exec.Command("tcpdump", "-U", "-Z", "root", "-i", "br0", "-s0", "-w", file,
		"udp port 67 or udp port 68 or udp port 4011")
	start(t, tcpdump, "listening on")
	return func(there func([]wire) bool) []wire {
		t.Helper()
		until(t, "the capture has all packets", func() bool {
			st, err := os.Stat(file)
			return err == nil && st.Size() >= 24 && there(readPcap(t, file))
		})
		return readPcap(t, file)
	}
}

// Beside dnsmasq, boot clients hear our answers, and nobody ever gets an address from us.
func TestBesideAnotherDHCPServer(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq", "tcpdump")
	v := newSite(t, boots)
	client := testnet.NewHost(t, "client", "10.77.0.60/24", "52:54:00:77:00:02")
	client.Run(t, "ip", "route", "add", "default", "dev", "eth0") // for 255.255.255.255
	stop := capture(t)

	for i, c := range []struct {
		packet, src, dst string
		want             string // what we say; "" for nothing
	}{
		{
			"rom-bios-discover", ":68", "255.255.255.255:67",
			`OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" file="bios-pxe.nbp" opt67="bios-pxe.nbp"`,
		},
		{
			"rom-bios-request-67", ":68", "255.255.255.255:67",
			`ACK from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" file="bios-pxe.nbp" opt67="bios-pxe.nbp"`,
		},
		{
			"edk2-x64-discover", ":68", "255.255.255.255:67",
			`OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" file="uefi-pxe.nbp" opt67="uefi-pxe.nbp"`,
		},
		{"edk2-x64-request-67", ":68", "255.255.255.255:67", ""},
		{
			"edk2-x64-request-4011", "10.77.0.60:4011", "10.77.0.1:4011",
			`ACK from 10.77.0.1:4011 yiaddr=0.0.0.0 class="PXEClient" file="uefi-pxe.nbp" opt67="uefi-pxe.nbp"`,
		},
		{
			"uefi-request-4011-arch-0", "10.77.0.60:4011", "10.77.0.1:4011",
			`ACK from 10.77.0.1:4011 yiaddr=0.0.0.0 class="PXEClient" file="uefi-pxe.nbp" opt67="uefi-pxe.nbp"`,
		},
		{
			"edk2-x64-http-discover", ":68", "255.255.255.255:67",
			`OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="HTTPClient" file="" ` +
				`opt67="http://10.77.0.1:8080/uefi-http"`,
		},
		{
			"ipxe-bios-discover", ":68", "255.255.255.255:67",
			`OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" ` +
				`file="http://10.77.0.1:8080/ipxe" opt67="http://10.77.0.1:8080/ipxe"`,
		},
		{
			"ipxe-virtualbox-discover", ":68", "255.255.255.255:67",
			`OFFER from 10.77.0.1:67 yiaddr=0.0.0.0 class="PXEClient" ` +
				`file="tftp://10.77.0.1/ipxe.nbp" opt67="tftp://10.77.0.1/ipxe.nbp"`,
		},
		{
			"ipxe-request-4011", "10.77.0.60:68", "10.77.0.1:4011",
			`ACK from 10.77.0.1:4011 yiaddr=0.0.0.0 class="PXEClient" ` +
				`file="http://10.77.0.1:8080/ipxe" opt67="http://10.77.0.1:8080/ipxe"`,
		},
		{"os-udhcp-discover", ":68", "255.255.255.255:67", ""},
		{"os-windows-request", ":68", "255.255.255.255:67", ""},
	} {
		t.Run(c.packet, func(t *testing.T) {
			then := c.packet
			if c.want == "" {
				then = "rom-bios-discover" // one that we answer
			}
			var ours []string
			for _, h := range playBoth(t, client, c.packet, then, c.src, c.dst, func(heard []string) bool {
				return v.packets() > 2*i && (c.want == "" || fromUs(heard))
			}) {
				if strings.Contains(h, "from 10.77.0.1:") {
					ours = append(ours, h)
				}
			}
			switch {
			case c.want == "" && len(ours) > 0:
				t.Errorf("we said %q, want silence", ours)
			case c.want != "" && (len(ours) != 1 || ours[0] != c.want):
				t.Errorf("we said\n%q, want\n%q", ours, c.want)
			}
		})
	}

	const ours = 9 + 12 // 9 to the first packets of rows, 12 to the second packets
	packets := stop(func(packets []wire) bool {
		return count(packets, ourAddr) >= ours && count(packets, otherAddr) > 0
	})
	var from, others int
	for _, w := range packets {
		switch w.src.Addr() {
		case ourAddr:
			from++
			if a := addr(w.p.YourIPAddr); a.IsValid() || w.p.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
				t.Errorf("we gave the address %v to %v", a, w.p.ClientHWAddr)
			}
		case netip.MustParseAddr("10.77.0.2"):
			others++
			if w.p.BootFileName != "" || w.p.BootFileNameOption() != "" {
				t.Errorf("the other DHCP server sent the boot file %q", w.p.BootFileName)
			}
		}
	}
	if from != ours || others == 0 {
		t.Errorf("captured %d packets of ours and %d of dnsmasq, want %d and some", from, others, ours)
	}
	until(t, "all packets are seen", func() bool { return v.packets() >= 24 })
	if n := v.packets(); n != 24 {
		t.Errorf("seen %d packets, want both of all 12", n)
	}
}

// count is how many packets come from an address.
func count(packets []wire, from netip.Addr) (n int) {
	for _, w := range packets {
		if w.src.Addr() == from {
			n++
		}
	}
	return n
}

// Real DHCP clients of operating systems get their lease from dnsmasq, and no answer from us.
func TestOrdinaryClientsAreLeftAlone(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq", "tcpdump")
	v := newSite(t, boots)
	for i, c := range []struct {
		program string
		args    []string
	}{
		{"udhcpc", []string{"-i", "eth0", "-n", "-q", "-t", "5", "-T", "1", "-s", "/bin/true"}},
		{
			"dhclient",
			[]string{"-1", "-v", "-d", "-sf", "/bin/true", "-lf", "/dev/null", "-pf", "/dev/null", "eth0"},
		},
	} {
		t.Run(c.program, func(t *testing.T) {
			testnet.Need(t, c.program)
			stop := capture(t)
			mac := fmt.Sprintf("52:54:00:88:00:%02x", i)
			h := testnet.NewHost(t, c.program, "", mac)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := h.Command(c.program, c.args...)
			got := leased(ctx, t, cmd)
			if !strings.Contains(got, "10.77.0.1") {
				t.Errorf("%s says %q, want a lease from 10.77.0.100 to 10.77.0.150", c.program, got)
			}
			acked := func(w wire) bool {
				return w.src.Addr() == otherAddr && w.p.ClientHWAddr.String() == mac &&
					w.p.MessageType() == dhcpv4.MessageTypeAck
			}
			for _, w := range stop(func(packets []wire) bool { return slices.ContainsFunc(packets, acked) }) {
				if w.src.Addr() == ourAddr {
					t.Errorf("we sent %v to %v", w.p.MessageType(), w.dst)
				}
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			var signs int
			for _, s := range v.seen {
				if s.MAC.String() == mac && s.Class == ClassOther {
					signs++
				}
			}
			if signs == 0 {
				t.Error("the client was not reported as seen")
			}
		})
	}
}

// leased runs a DHCP client until it says which address it got.
func leased(ctx context.Context, t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer func() { stop(); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var all strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		all.WriteString(line + "\n")
		// udhcpc: "lease of 10.77.0.120 obtained from …"; dhclient: "bound to 10.77.0.121 …".
		if strings.Contains(line, "lease of ") && strings.Contains(line, "obtained") ||
			strings.Contains(line, "bound to ") {
			return line
		}
	}
	return "no lease: " + all.String()
}

func TestSecondServerIsRefused(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, "10.77.0.1/24")
	cfg := Config{Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Decide: boots}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Listen(cfg)
	if err == nil {
		second.Close()
		t.Fatal("a second Listen succeeded")
	}
	for _, want := range []string{"UDP port 4011", "ss -ulpn"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("a second Listen: %q, want %q in it", err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := Listen(cfg)
	if err != nil {
		t.Fatalf("after the first is closed: %v", err)
	}
	third.Close()
}

// Listen also names port 67 when another program holds it without SO_REUSEADDR.
func TestTakenPort67IsNamed(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, "10.77.0.1/24")
	other, err := net.ListenPacket("udp4", "0.0.0.0:67")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, err := Listen(Config{Interfaces: []Interface{{Name: "br0", Addr: ourAddr}}, Decide: boots})
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "UDP port 67") {
		t.Errorf("Listen() = %v, want an error that names UDP port 67", err)
	}
}
