package appliance

import (
	"context"
	"fmt"
	"io"
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

// flood starts a hostile client on a host, which goes on until the returned function is called; that says what it has done.
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

// floodUDP sends some 20,000 malformed packets a second: as many as it can would only show who gets the CPU, since this
// is also the appliance's own. Some are requests that it never acknowledges.
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
	}
	slices.Sort(took)
	t.Logf("before: %v; within the flood: %v; the hostile client sent %s", quiet.Took.Round(time.Millisecond), took, stop())
	if took[2] > 4*time.Second { // which is what EDK2 waits before it asks again
		t.Errorf("boots within the flood took %v, want most of them without the firmware noticing", took)
	}
}
