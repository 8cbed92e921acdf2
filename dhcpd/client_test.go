package dhcpd

import (
	"bytes"
	"encoding/hex"
	"errors"
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

// The helper process: a boot client on another host. It sends one packet of testdata by broadcast or unicast,
// and prints every answer that it hears until its input ends. Then it sends the second packet, if there is
// one, and ends when it hears a boot server's answer to that.
func TestHelperClient(t *testing.T) {
	if os.Getenv("DHCPD_TEST_CLIENT") == "" {
		return // not skipped: nothing is left untested
	}
	var (
		name  = os.Getenv("DHCPD_TEST_CLIENT")
		dst   = netip.MustParseAddrPort(os.Getenv("DHCPD_TEST_DST"))
		local = os.Getenv("DHCPD_TEST_SRC")
	)
	load := func(name string) []byte {
		_, raw, _ := golden(t, name)
		if flags, err := hex.DecodeString(os.Getenv("DHCPD_TEST_FLAGS")); err == nil && len(flags) == 2 {
			copy(raw[10:], flags)
		}
		return raw
	}
	raw, then := load(name), []byte(nil)
	if name := os.Getenv("DHCPD_TEST_THEN"); name != "" {
		then = load(name)
		copy(then[4:], "then") // another transaction
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
		if then == nil {
			conn.Close()
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.WriteTo(then, net.UDPAddrFromAddrPort(dst)); err != nil {
			t.Error(err)
		}
	}()
	for buf := make([]byte, 2000); ; {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		if string(p.TransactionID[:]) == "then" {
			if p.ClassIdentifier() != "" {
				return
			}
			continue
		}
		fmt.Printf("HEARD %v from %v yiaddr=%v class=%q file=%q opt67=%q\n", p.MessageType(), from,
			p.YourIPAddr, p.ClassIdentifier(), p.BootFileName, p.BootFileNameOption())
	}
}

// play sends one packet from a host. It returns the answers that the host heard, once enough returns true.
func play(t *testing.T, h testnet.Host, packet, src, dst string, enough func(heard []string) bool) []string {
	t.Helper()
	return playBoth(t, h, packet, "", src, dst, enough)
}

// playBoth sends a second packet when enough was heard of the first. It returns the answers to the first
// packet that came before our answer to the second: an unwanted answer would come before that, too.
func playBoth(
	t *testing.T, h testnet.Host, packet, then, src, dst string, enough func(heard []string) bool,
) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(self, "-test.run=^TestHelperClient$")
	cmd.Env = append(os.Environ(), "DHCPD_TEST_CLIENT="+packet, "DHCPD_TEST_THEN="+then,
		"DHCPD_TEST_SRC="+src, "DHCPD_TEST_DST="+dst)
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
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("helper client: %v\n%s", err, said.String())
	}
	return said.heard()
}

// outcome collects what a helper client prints.
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
