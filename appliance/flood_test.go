package appliance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// A flooding is a hostile client. It runs until halt is called; then Sent and For say what it did.
type flooding struct {
	Sent   map[string]int64 // packets, or connections, to each port
	For    time.Duration
	enough chan struct{} // closed when it has sent enoughStrangers
	halt   func()
}

func (f *flooding) String() string {
	return fmt.Sprintf("%d packets to 67, %d to 4011, %d to 69, %d connections in %v", f.Sent["67"],
		f.Sent["4011"], f.Sent["69"], f.Sent["http"], f.For.Round(time.Millisecond))
}

// flood starts a hostile client on a host. stop ends it and returns what it has sent.
func flood(t *testing.T, h testnet.Host, kinds string) (stop func() string) {
	t.Helper()
	f := startFlood(t, h, kinds)
	return func() string {
		f.halt()
		return f.String()
	}
}

func startFlood(t *testing.T, h testnet.Host, kinds string) *flooding {
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
	lines := bufio.NewScanner(said)
	if !lines.Scan() {
		t.Fatalf("the flooder does not start: %v", lines.Err())
	}
	f := &flooding{enough: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			if lines.Text() == "enough" {
				close(f.enough)
				continue
			}
			_ = json.Unmarshal(lines.Bytes(), f) // "PASS" follows
		}
	}()
	f.halt = sync.OnceFunc(func() {
		end.Close()
		<-read
		_ = cmd.Wait()
	})
	t.Cleanup(f.halt)
	return f
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
	start, ports := time.Now(), []string{"67", "4011", "69", "http"}
	for i, kind := range ports {
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
	said := flooding{Sent: map[string]int64{}, For: time.Since(start)}
	for i, kind := range ports {
		said.Sent[kind] = sent[i].Load()
	}
	if err := json.NewEncoder(os.Stdout).Encode(&said); err != nil {
		t.Error(err)
	}
}

// floodUDP sends about 20,000 malformed packets a second. More would only show who gets the CPU, which the
// appliance shares. Some packets are requests whose answers it never acknowledges.
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

// malformed returns packets that are wrong for a port's parser, some of them nearly right.
func malformed(t *testing.T, port string) (all [][]byte) {
	random := rand.New(rand.NewPCG(1, 2))
	if port == "69" {
		for _, p := range []string{
			"", "\x00", "\x00\x01", "\x00\x01snponly.efi", "\x00\x01snponly.efi\x00octet\x00blksize\x00",
			"\x00\x01\x00\x00", "\x00\x09",
			"\x00\x02snponly.efi\x00octet\x00", "\x00\x04\x00\x01", "\x00\x05\x00\x01x\x00",
			"\x00\x01" + strings.Repeat("../", 150) + "etc/passwd\x00octet\x00",
			"\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00", // which nobody will acknowledge
		} {
			all = append(all, []byte(p))
		}
		return all
	}
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x66, 0, 1}
	p, err := dhcpv4.NewDiscovery(mac,
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
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

// floodHTTP opens connections that send nonsense or half a request, and keeps the last 500 of them open.
func floodHTTP(ctx context.Context, opened *atomic.Int64) {
	var kept []net.Conn
	for i := 0; ctx.Err() == nil; i++ {
		conn, err := net.DialTimeout("tcp4", "10.77.0.1:8080", time.Second)
		if err != nil {
			continue
		}
		opened.Add(1)
		_, _ = io.WriteString(conn, []string{
			"\x16\x03\x01\x02\x00", "GET / HTTP/9.9\r\n\r\n",
			"GET /boot.ipxe?mac=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /nbp/" + strings.Repeat("../", 200) + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /boot.ipxe HTTP/1.1\r\nHo", "",
			"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n",
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

// One client sends rubbish to every port; another one boots as usual.
func TestFloodLeavesOthersUnharmed(t *testing.T) {
	testnet.Need(t, "ip")
	newSite(t)
	h := client(t)
	hostile := testnet.NewHost(t, "hostile", "10.77.0.66/24", "52:54:00:66:00:01")
	machine := chain{MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: patience}
	us := netip.MustParseAddr("10.77.0.1")
	quiet := machine.boots(t, h)
	quiet.from(t, "before the flood", us)
	f := startFlood(t, hostile, "67 4011 69 http")
	var took []time.Duration
	for i := range 5 {
		end := machine.boots(t, h)
		end.from(t, fmt.Sprintf("boot %d within the flood", i), us)
		took = append(took, end.Took.Round(time.Millisecond))
		t.Logf("boot %d within the flood: offer, port 4011, TFTP and script after %v", i, end.Steps)
	}
	f.halt()
	slices.Sort(took)
	t.Logf("before: %v; within the flood: %v; the hostile client sent %v", quiet.Took.Round(time.Millisecond),
		took, f)
	rate := math.Inf(1)
	for port, n := range f.Sent {
		if n == 0 {
			t.Errorf("nothing was sent to port %s", port)
		}
		if port != "http" {
			rate = min(rate, float64(n)/f.For.Seconds())
		}
	}
	// On a machine that is busy with other work, boot times only show who gets the CPU. It is busy if the
	// flooder comes to far fewer than its 20,000 packets a second. EDK2 waits for 4 s before it asks again.
	if rate < 5000 {
		t.Logf("how long boots take is not judged: the flooder came to %.0f packets a second", rate)
	} else if took[2] > 4*time.Second+20*quiet.Took {
		t.Errorf("boots within the flood took %v, want most of them without the firmware noticing", took)
	}
}

// patience is how long tests wait on a machine with other work on every core.
const patience = 5 * time.Minute
