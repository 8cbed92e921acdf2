package tftpd

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
)

func TestFilter(t *testing.T) {
	ops := filter(nil)
	// bpf.VM has no offsets from the IP header, so the load of the source address is left out.
	vm, err := bpf.NewVM(append(ops[:4:4], ops[len(ops)-1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, payload string
		pass          bool
	}{
		{"a request", "\x00\x01snponly.efi\x00octet\x00", true},
		{"with options", "\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00", true},
		{"a write request", "\x00\x02x\x00octet\x00", true},
		{"without an end", "\x00\x01snponly.efi\x00octet", true},
		{"malformed, which is counted", "\x00\x01\x00", true},
		{"an error", "\x00\x05\x00\x00\x00", false},
		{"an acknowledgement", "\x00\x04\x00\x00", false},
		{"data", "\x00\x03\x00\x01\x00", false},
		{"another opcode", "\x01\x01x\x00octet\x00", false},
		{"nothing", "", false},
		{"half an opcode", "\x00", false},
	} {
		packet := append(make([]byte, 8), c.payload...)
		if n, err := vm.Run(packet); err != nil || (n > 0) != c.pass {
			t.Errorf("%s: %q: %d, %v, want it passed: %v", c.name, c.payload, n, err, c.pass)
		}
	}
}

// Most requests of a client that floods are dropped until its time is over. Other clients get answers.
func TestFloodingClientIsShutOut(t *testing.T) {
	t.Parallel()
	s, err := Listen(Config{Addr: "127.0.0.1:0", Open: openBoot})
	if err != nil {
		t.Fatal(err)
	}
	s.flood.most = 50
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-ran
	}()
	from := func(ip string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("udp4", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	hostile := netip.MustParseAddr("127.0.0.2")
	shut := func() bool {
		s.flood.mu.Lock()
		defer s.flood.mu.Unlock()
		return len(s.flood.shut) == 1 && s.flood.shut[0] == hostile
	}
	c := from(hostile.String())
	for end := time.Now().Add(10 * time.Second); !shut(); {
		if time.Now().After(end) {
			t.Fatal("it floods and is not shut out")
		}
		_, _ = c.Write(rrq("nope.efi"))
	}
	// answered sends requests from a socket that takes answers from any port.
	answered := func(ip string) bool {
		t.Helper()
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 1000)
		for range 200 {
			if _, err := c.WriteToUDPAddrPort(rrq("tiny"), s.Addr()); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, _, err := c.ReadFromUDPAddrPort(buf); err == nil && bytes.Contains(buf[:n], boot["tiny"]) {
				return true
			} else if err == nil && !strings.Contains(string(buf[:n]), "busy") {
				t.Fatalf("answer %q", buf[:n])
			}
		}
		return false
	}
	if !answered("127.0.0.3") {
		t.Error("its neighbour gets no answer")
	}
	// Somebody may forge a machine's address, so one in sixteen requests from it is still answered.
	if !answered(hostile.String()) {
		t.Error("none of its requests is heard, want a few")
	}
	if heard, asked := heardOf(t, hostile.String(), s.Addr(), 400); heard == 0 || heard > asked/4 {
		t.Errorf("%d of its %d requests are heard, want about a sixteenth", heard, asked)
	}
	s.flood.readmit(hostile)
	if !answered(hostile.String()) {
		t.Error("its time is over, and it gets no answer")
	}
}

// heardOf sends requests for a file that does not exist, and counts the answers.
func heardOf(t *testing.T, ip string, to netip.AddrPort, ask int) (heard, asked int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range ask {
		if _, err := c.WriteToUDPAddrPort(rrq("nope.efi"), to); err != nil {
			t.Fatal(err)
		}
	}
	for buf := make([]byte, 100); ; heard++ {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
			return heard, ask
		}
	}
}

func TestSieveIsBounded(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newFloodFilter(raw, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.most = 2
	now := time.Unix(1000, 0)
	for i := range 3 * maxCounted {
		s.admits(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now)
	}
	if len(s.counts) > maxCounted || len(s.shut) != 0 {
		t.Errorf("%d addresses counted and %d shut out, want at most %d and none", len(s.counts), len(s.shut),
			maxCounted)
	}
	for i := range 2 * maxShut {
		a := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		// The fourth request is one that the kernel has let through.
		for n, want := range []bool{true, true, false, true} {
			if got := s.admits(a, now); got != want {
				t.Errorf("request %d of %v admitted: %v, want %v", n, a, got, want)
			}
		}
	}
	if len(s.shut) != maxShut {
		t.Errorf("%d are shut out, want the last %d", len(s.shut), maxShut)
	}
	if !s.admits(netip.MustParseAddr("10.2.0.1"), now) ||
		!s.admits(netip.MustParseAddr("10.2.0.1"), now.Add(floodWindow)) {
		t.Error("another client is not admitted")
	}
}
