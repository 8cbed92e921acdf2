package tftpd

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestLadder(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := newStalls(func() time.Time { return now })
	try := func(client, blksize string) *attempt {
		t.Helper()
		block, _ := wish{options: map[string]string{"blksize": blksize}}.blockSize(s.limit(client,
			netip.Addr{}))
		return s.begin(client, netip.Addr{}, block)
	}
	stall := func(a *attempt) {
		a.touch(now)
		now = now.Add(9 * time.Second)
		s.end(a, false)
	}
	expect := func(what, client string, want int) {
		t.Helper()
		a := try(client, "1468")
		if a.block != want {
			t.Errorf("%s: block size %d, want %d", what, a.block, want)
		}
		s.end(a, true)
	}

	a := try("a", "1468")
	// The OACK was never acknowledged: no block was sent, so none was too large.
	now = now.Add(9 * time.Second)
	s.end(a, false)
	expect("a client that went away before the first block", "a", 1468)

	a = try("a", "1468")
	a.touch(now)
	s.end(a, false)
	expect("a client that hung up at once", "a", 1468)

	stall(try("a", "1468"))
	expect("after a stall", "a", 1428)
	expect("after a stall and a success", "a", 1428)
	expect("another client", "b", 1468)

	one, two := try("a", "1468"), try("a", "1468")
	one.touch(now)
	two.touch(now)
	now = now.Add(2 * time.Second)
	three := try("a", "1468")
	if three.block != 1024 {
		t.Errorf("asked anew while two stall side by side: block size %d, want one step down, 1024",
			three.block)
	}
	s.end(one, false)
	s.end(two, false)
	stall(three)
	expect("the last step", "a", 512)
	stall(try("a", "1468"))
	expect("no further", "a", 512)

	now = now.Add(stallMemory + time.Second)
	expect("a day later", "a", 1468)

	stall(try("c", "1400"))
	expect("what stalled is the size that was sent", "c", 1024)
	stall(try("d", ""))
	expect("512 is not to blame", "d", 1468)
	if len(s.running) != 0 {
		t.Errorf("%d clients running after all have ended", len(s.running))
	}
}

func TestStallsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	s := newStalls(func() time.Time { return now })
	for i := range maxStalled + 10 {
		a := s.begin(fmt.Sprint(i), netip.Addr{}, s.limit(fmt.Sprint(i), netip.Addr{}))
		a.touch(now.Add(time.Second))
		now = now.Add(3 * time.Second)
		s.end(a, false)
	}
	if len(s.clients) != maxStalled {
		t.Errorf("%d clients remembered, want %d", len(s.clients), maxStalled)
	}
	if _, ok := s.clients["0"]; ok {
		t.Error("the least recently seen is remembered, want it forgotten")
	}
}

func TestOneClientsLimit(t *testing.T) {
	t.Parallel()
	s, done := server(t, Config{
		Addr: "127.0.0.1:0", MaxPerClient: 2, Client: func(netip.Addr) string { return "52:54:00:00:00:01" },
	})
	for range 2 {
		hold(t, s)
	}
	if _, err := get(client(t, s.Addr(), 1468, true), "tiny"); err == nil ||
		!strings.Contains(err.Error(), "server busy") {
		t.Errorf("a third transfer: %v, want server busy", err)
	}
	if tr := ended(t, done); tr.Err == nil || tr.Name != "tiny" {
		t.Errorf("Done(%+v), want the refusal of tiny", tr)
	}
}

// hold begins a transfer that lasts until the test ends: its client never counts as silent.
func hold(t *testing.T, s *Server) {
	t.Helper()
	c := udp(t)
	if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi"), s.Addr()); err != nil {
		t.Fatal(err)
	}
	_, from := receive(t, c)
	if _, err := c.WriteToUDPAddrPort(blockPacket(opAck, 1), from); err != nil {
		t.Fatal(err)
	}
	for b, _ := receive(t, c); b[3] != 2; b, _ = receive(t, c) {
		continue // with the second block it has been given a transfer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exchanges.byClient[c.LocalAddr().(*net.UDPAddr).AddrPort()]
	if e == nil || e.try == nil {
		t.Fatal("the transfer does not run")
	}
	e.heard, e.sent = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
}

// RFC 2347: "the option names are case insensitive". U-Boot and some ROMs write them in capitals.
func TestOptionNamesInAnyCase(t *testing.T) {
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	c := udp(t)
	if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi", "TSIZE", "0", "BlkSize", "2048"), addr); err != nil {
		t.Fatal(err)
	}
	oack, from := receive(t, c)
	for _, want := range []string{"\x00\x06", "tsize\x001048576\x00", "blksize\x001468\x00"} {
		if !bytes.Contains(oack, []byte(want)) {
			t.Errorf("OACK %q, want %q in it", oack, want)
		}
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x05\x00\x08\x00"), from); err != nil {
		t.Fatal(err)
	}
	ended(t, done)
}

// The firmware asks again before we have given up on its first try.
func TestSmallerBlocksAfterAStall(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, Config{Addr: "127.0.0.1:0"})
	for _, want := range []string{"1468", "1428"} {
		c := udp(t)
		if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi", "blksize", "1468"), addr); err != nil {
			t.Fatal(err)
		}
		oack, from := receive(t, c)
		if !bytes.Contains(oack, []byte("blksize\x00"+want+"\x00")) {
			t.Fatalf("OACK %q, want blksize %s", oack, want)
		}
		if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x00"), from); err != nil {
			t.Fatal(err)
		}
		// The block is lost, and so is the next that is sent after ackTimeout.
		receive(t, c)
		receive(t, c)
		defer func() { _, _ = c.WriteToUDPAddrPort([]byte("\x00\x05\x00\x00\x00"), from) }()
	}
}

// A switch port on the way has a smaller MTU than the machine and the server, and drops large frames.
func TestPathWithASmallerMTU(t *testing.T) {
	testnet.Need(t, "ip", "curl")
	h, done := rack(t)
	for _, args := range [][]string{
		{"link", "set", "v-client", "mtu", "1400"},
		{"link", "set", "br0", "mtu", "1500"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	to := filepath.Join(t.TempDir(), "got")
	var sizes []int
	for try := 1; ; try++ {
		out, err := h.Command("curl", "-sS", "--max-time", "2", "--tftp-blksize", "1468", "-o", to,
			"tftp://10.88.1.1/snponly.efi").CombinedOutput()
		if err == nil {
			break
		}
		if try == 4 {
			t.Fatalf("four tries, the last: %v\n%s", err, out)
		}
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, boot["snponly.efi"]) {
		t.Errorf("%d bytes, %v, want the file", len(got), err)
	}
	for range 3 {
		select {
		case tr := <-done:
			sizes = append(sizes, tr.BlockSize)
			if tr.BlockSize != 1024 && tr.Retransmits == 0 {
				t.Errorf("Done(%+v), want retransmissions counted", tr)
			}
		case <-time.After(time.Minute):
			t.Fatalf("transfers of block sizes %v were reported, want three", sizes)
		}
	}
	slices.Sort(sizes) // a stalled one is given up long after the next has ended
	if !slices.Equal(sizes, []int{1024, 1428, 1468}) {
		t.Errorf("block sizes %v, want 1468, 1428 and 1024", sizes)
	}
}

// setClock returns the moment t with another time of day, as after the clock was set. In a time.Time from
// time.Now, the seconds of the wall clock are above the 30 bits of its nanoseconds.
func setClock(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30
	return t
}

// Setting the clock while a transfer runs neither makes nor hides a stall.
func TestAStallWhileTheClockIsSet(t *testing.T) {
	for name, c := range map[string]struct {
		by, silent time.Duration
		want       int
	}{
		"ahead, and it moves":  {24 * time.Hour, 0, 1468},
		"back, and it stalls":  {-24 * time.Hour, 9 * time.Second, 1428},
		"ahead, and it stalls": {24 * time.Hour, 9 * time.Second, 1428},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			s := newStalls(func() time.Time { return now })
			a := s.begin("a", netip.Addr{}, 1468)
			now = now.Add(time.Minute)
			a.touch(now)
			now = setClock(now.Add(c.silent), c.by)
			s.end(a, false)
			if got := s.limit("a", netip.Addr{}); got != c.want {
				t.Errorf("after it the client is given blocks of %d bytes, want %d", got, c.want)
			}
		})
	}
}
