package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// flood starts a hostile client on a host, which goes on until the returned function is called; that says
// what it has done.
func flood(t *testing.T, h testnet.Host, kinds string) (stop func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(self, "-test.run=^TestFlooder$")
	cmd.Env = append(os.Environ(), "APPLIANCE_TEST_FLOOD="+kinds)
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(said, make([]byte, 3)); err != nil { // "go\n"
		t.Fatalf("the flooder does not start: %v", err)
	}
	stop = sync.OnceValue(func() string {
		end.Close()
		all, _ := io.ReadAll(said)
		_ = cmd.Wait()
		line, _, _ := strings.Cut(string(all), "\n")
		return line
	})
	t.Cleanup(func() { stop() })
	return stop
}

// TestFlooder is the helper process that floods the appliance at 10.77.0.1 until its input ends.
func TestFlooder(t *testing.T) {
	kinds := os.Getenv("APPLIANCE_TEST_FLOOD")
	if kinds == "" {
		return // not skipped: nothing is left untested
	}
	ctx, cancel := context.WithCancel(t.Context())
	fmt.Println("go")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var all sync.WaitGroup
	var sent [4]atomic.Int64
	for i, kind := range []string{"67", "4011", "69", "http"} {
		if kind == "67" && kinds == "strangers" {
			all.Go(func() { strangers(ctx, t, &sent[0]) })
		}
		if !strings.Contains(kinds, kind) {
			continue
		}
		all.Go(func() {
			if kind == "http" {
				floodHTTP(ctx, &sent[i])
			} else {
				floodUDP(ctx, t, kind, &sent[i])
			}
		})
	}
	all.Wait()
	fmt.Printf("%d packets to 67, %d to 4011, %d to 69, %d connections\n", sent[0].Load(), sent[1].Load(), sent[2].Load(), sent[3].Load())
}

// floodUDP sends some 20,000 malformed packets a second: as many as it can would only show who gets the CPU,
// since this is also the appliance's own. Some are requests that it never acknowledges.
func floodUDP(ctx context.Context, t *testing.T, port string, sent *atomic.Int64) {
	dst := net.JoinHostPort("10.77.0.1", port)
	rubbish := malformed(t, port)
	for ctx.Err() == nil {
		conn, err := net.Dial("udp4", dst) // another port: to TFTP, another client
		if err != nil {
			continue
		}
		for range 100 {
			if _, err := conn.Write(rubbish[rand.IntN(len(rubbish))]); err == nil {
				sent.Add(1)
			}
		}
		conn.Close()
		time.Sleep(5 * time.Millisecond)
	}
}

// malformed are packets that a port's parser should choke on, some nearly right.
func malformed(t *testing.T, port string) (all [][]byte) {
	random := rand.New(rand.NewPCG(1, 2))
	if port == "69" {
		for _, p := range []string{
			"", "\x00", "\x00\x01", "\x00\x01snponly.efi", "\x00\x01snponly.efi\x00octet\x00blksize\x00", "\x00\x01\x00\x00", "\x00\x09",
			"\x00\x02snponly.efi\x00octet\x00", "\x00\x04\x00\x01", "\x00\x05\x00\x01x\x00", "\x00\x01" + strings.Repeat("../", 150) + "etc/passwd\x00octet\x00",
			"\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00", // which nobody will acknowledge
		} {
			all = append(all, []byte(p))
		}
		return all
	}
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x66, 0, 1}
	p, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
	if err != nil {
		t.Fatal(err)
	}
	whole := p.ToBytes()
	for range 64 {
		spoilt := append([]byte(nil), whole...)
		for range 1 + random.IntN(20) {
			spoilt[random.IntN(len(spoilt))] = byte(random.Uint32())
		}
		all = append(all, spoilt, whole[:random.IntN(len(whole))])
	}
	return append(all, make([]byte, 300), []byte{1}, nil)
}

// floodHTTP opens connections that say nonsense, or half of something, and keeps as many as it gets.
func floodHTTP(ctx context.Context, opened *atomic.Int64) {
	var kept []net.Conn
	for i := 0; ctx.Err() == nil; i++ {
		conn, err := net.DialTimeout("tcp4", "10.77.0.1:8080", time.Second)
		if err != nil {
			continue
		}
		opened.Add(1)
		_, _ = io.WriteString(conn, []string{
			"\x16\x03\x01\x02\x00", "GET / HTTP/9.9\r\n\r\n", "GET /boot.ipxe?mac=%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /nbp/" + strings.Repeat("../", 200) + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /boot.ipxe HTTP/1.1\r\nHo", "", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n",
		}[i%8])
		if kept = append(kept, conn); len(kept) > 500 {
			kept[0].Close()
			kept = kept[1:]
		}
	}
	for _, conn := range kept {
		conn.Close()
	}
}

// One client sends rubbish to every port without end; another one boots as if nothing were.
func TestFloodLeavesOthersUnharmed(t *testing.T) {
	testnet.Need(t, "ip")
	newSite(t)
	h := client(t)
	hostile := testnet.NewHost(t, "hostile", "10.77.0.66/24", "52:54:00:66:00:01")
	machine := chain{MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: 30 * time.Second}
	us := netip.MustParseAddr("10.77.0.1")
	quiet := machine.boots(t, h)
	quiet.from(t, "before the flood", us)
	stop := flood(t, hostile, "67 4011 69 http")
	var took []time.Duration
	for i := range 5 {
		end := machine.boots(t, h)
		end.from(t, fmt.Sprintf("boot %d within the flood", i), us)
		took = append(took, end.Took.Round(time.Millisecond))
		t.Logf("boot %d within the flood: offer, port 4011, TFTP and script after %v", i, end.Steps)
	}
	slices.Sort(took)
	t.Logf("before: %v; within the flood: %v; the hostile client sent %s", quiet.Took.Round(time.Millisecond), took, stop())
	// EDK2 waits for 4 s before it asks again. A machine that is busy with other work shows that in the quiet
	// boot, too.
	if took[2] > 4*time.Second+20*quiet.Took {
		t.Errorf("boots within the flood took %v, want most of them without the firmware noticing", took)
	}
}

// strangers plays machines that nobody has seen, each once: it asks for an address, takes what it is offered,
// and gives most of that back, so that there is more to take.
func strangers(ctx context.Context, t *testing.T, sent *atomic.Int64) {
	lc := net.ListenConfig{}
	conn, err := lc.ListenPacket(ctx, "udp4", ":68")
	if err != nil {
		t.Error(err)
		return
	}
	us := &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}
	say := func(kind dhcpv4.MessageType, mac net.HardwareAddr, more ...dhcpv4.Modifier) {
		p, err := dhcpv4.New(append(more, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(kind))...)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.WriteTo(p.ToBytes(), us); err == nil {
			sent.Add(1)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		buf := make([]byte, 2000)
		for ctx.Err() == nil {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				continue
			}
			r, err := dhcpv4.FromBytes(buf[:n])
			switch ours := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us.IP)); {
			case err != nil || r.ClientHWAddr[0] != 2:
			case r.MessageType() == dhcpv4.MessageTypeOffer:
				say(dhcpv4.MessageTypeRequest, r.ClientHWAddr, ours, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(r.YourIPAddr)))
			case r.MessageType() == dhcpv4.MessageTypeAck && rand.IntN(10) > 0:
				say(dhcpv4.MessageTypeRelease, r.ClientHWAddr, ours, dhcpv4.WithClientIP(r.YourIPAddr))
			}
		}
	}()
	for ctx.Err() == nil {
		for i := range 50 {
			mac := net.HardwareAddr{2, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
			if i%2 == 0 {
				say(dhcpv4.MessageTypeDiscover, mac)
				continue
			}
			say(dhcpv4.MessageTypeDiscover, mac, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
				dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
		}
		time.Sleep(time.Millisecond)
	}
}

// What strangers without end may cost: the figures are measured ones, twice or more.
const (
	strangersFor    = 10 * time.Second
	strangersMemory = 128 << 20
	strangersLeases = 3 << 20
	strangersStore  = 24 << 20
)

// Hundreds of thousands of machines that were never seen before ask a DHCP server for addresses, by real
// sockets: memory, lease file and database stay small, and a machine that is known boots. A million goes
// through the table alone in dhcpd/leases.
func TestStrangersWithoutEnd(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t, "dhcp: {mode: server, server: {subnets: [{subnet: 10.77.0.0/24, pools: [10.77.0.100-10.77.0.199]}]}}\n")
	h := client(t)
	hostile := testnet.NewHost(t, "hostile", "10.77.0.66/24", "52:54:00:66:00:01")
	if _, err := s.engine.AddMachine(t.Context(), "test", deploy.NewMachine{Name: "m1", MACs: []inventory.MAC{clientMAC}}); err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	before, peak := resident(t), 0
	stop := flood(t, hostile, "strangers")
	machine := chain{MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: 30 * time.Second}
	var boots []time.Duration
	for end := time.Now().Add(strangersFor); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		got := machine.boots(t, h)
		got.from(t, "a known machine within the flood", netip.MustParseAddr("10.77.0.1"))
		if got.Address.IsUnspecified() {
			t.Fatal("a known machine is offered no address")
		}
		boots = append(boots, got.Took.Round(time.Millisecond))
		peak = max(peak, resident(t))
	}
	sent := stop()
	slices.Sort(boots)
	size := func(name string) int64 {
		t.Helper()
		st, err := os.Stat(filepath.Join(s.data, name))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	leases, store := size("leases"), size("pxectl.db")
	t.Logf("strangers sent %s; a known machine booted %d times, at most %v; memory +%d MiB, leases %d KiB, database %d KiB",
		sent, len(boots), boots[len(boots)-1], (peak-before)>>20, leases>>10, store>>10)
	if peak-before > strangersMemory {
		t.Errorf("memory grew from %d to %d MiB, want at most %d MiB more", before>>20, peak>>20, strangersMemory>>20)
	}
	if leases > strangersLeases || store > strangersStore {
		t.Errorf("the lease file has %d bytes and the database %d, want at most %d and %d", leases, store, strangersLeases, strangersStore)
	}
	events, err := s.engine.Events(0, "", 100_000)
	if err != nil || len(events) > boltdb.Unowned+boltdb.PerMachine {
		t.Errorf("%d events, %v, want at most those that are kept of strangers and of one machine", len(events), err)
	}
}

// resident is how much memory this process has.
func resident(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A connection that does not get to the end of its header is closed after ten seconds, whatever it sends; one
// that loads slowly is not.
func TestHeaderTimeout(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	const large = 256 << 20 // more than sockets hold
	file := filepath.Join(s.data, "ramdisk", "arm64", "vmlinuz")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644), os.Truncate(file, large)); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, c := range []struct {
		name, port, first, more string
	}{
		{"silence", "8080", "", ""},
		{"half a header", "8080", "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ", ""},
		{"a header without end", "8080", "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ", "x"},
		{"silence to TLS", "8443", "", ""},
		{"half a handshake", "8443", "\x16\x03\x01\x02\x00\x01", ""},
	} {
		all.Go(func() {
			conn, err := net.Dial("tcp4", "10.77.0.1:"+c.port)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			start := time.Now()
			_, _ = io.WriteString(conn, c.first)
			buf := make([]byte, 512)
			for time.Since(start) < time.Minute {
				_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
				if _, err = conn.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				_, _ = io.WriteString(conn, c.more)
			}
			if took := time.Since(start); took < 9*time.Second || took > 30*time.Second {
				t.Errorf("%s on port %s was closed after %v (%v), want 10 s", c.name, c.port, took.Round(time.Millisecond), err)
			}
		})
	}
	all.Go(func() {
		conn, err := net.Dial("tcp4", "10.77.0.1:8080")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		start := time.Now()
		_, _ = io.WriteString(conn, "GET /ramdisk/arm64/vmlinuz HTTP/1.0\r\n\r\n")
		var got int
		for buf := make([]byte, 1<<20); err == nil; {
			var n int
			if n, err = conn.Read(buf); time.Since(start) < 12*time.Second {
				time.Sleep(250 * time.Millisecond)
			}
			got += n
		}
		if took := time.Since(start); got < large || took < 12*time.Second {
			t.Errorf("a slow download ended after %v with %d bytes (%v), want all %d", took, got, err, large)
		}
	})
	all.Wait()
}
