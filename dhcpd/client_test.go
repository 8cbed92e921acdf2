package dhcpd

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// The helper process: a boot client on another host. It broadcasts or unicasts one
// packet of testdata and prints every answer that it hears until its input ends.
func TestHelperClient(t *testing.T) {
	if os.Getenv("DHCPD_TEST_CLIENT") == "" {
		return // not skipped: nothing is left untested
	}
	var (
		name  = os.Getenv("DHCPD_TEST_CLIENT")
		dst   = netip.MustParseAddrPort(os.Getenv("DHCPD_TEST_DST"))
		local = os.Getenv("DHCPD_TEST_SRC")
	)
	_, raw, _ := golden(t, name)
	if flags, err := hex.DecodeString(os.Getenv("DHCPD_TEST_FLAGS")); err == nil && len(flags) == 2 {
		copy(raw[10:], flags)
	}
	conn, err := net.ListenPacket("udp4", local)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := allowBroadcast(rc); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo(raw, net.UDPAddrFromAddrPort(dst)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		conn.Close()
	}()
	for buf := make([]byte, 2000); ; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("HEARD %v from %v yiaddr=%v class=%q file=%q opt67=%q\n", p.MessageType(), from, p.YourIPAddr, p.ClassIdentifier(), p.BootFileName, p.BootFileNameOption())
	}
}

// play sends one packet from a host and returns what it heard until enough of that is there.
func play(t *testing.T, h testnet.Host, packet, src, dst string, enough func(heard []string) bool) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(self, "-test.run=^TestHelperClient$")
	cmd.Env = append(os.Environ(), "DHCPD_TEST_CLIENT="+packet, "DHCPD_TEST_SRC="+src, "DHCPD_TEST_DST="+dst)
	var said outcome
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !enough(said.heard()) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for what should not come
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("helper client: %v\n%s", err, said.String())
	}
	return said.heard()
}

// outcome is what a helper client says.
type outcome struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *outcome) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *outcome) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *outcome) heard() (all []string) {
	for line := range strings.Lines(o.String()) {
		if s, ok := strings.CutPrefix(line, "HEARD "); ok && strings.HasSuffix(s, "\n") {
			all = append(all, strings.TrimSpace(s))
		}
	}
	return all
}

// fromUs says whether one of the answers is ours.
func fromUs(heard []string) bool {
	return slices.ContainsFunc(heard, func(s string) bool { return strings.Contains(s, "from 10.77.0.1:") })
}
