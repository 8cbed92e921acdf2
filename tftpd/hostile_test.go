package tftpd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// counts returns how many exchanges are unproven and how many run.
func (s *Server) counts() (unproven, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exchanges.count, s.exchanges.running
}

// rackFor is rack with a configuration. It also returns the server.
func rackFor(t *testing.T, cfg Config) (testnet.Host, *Server, chan Transfer) {
	t.Helper()
	testnet.Bridge(t, "10.88.1.1/24")
	h := testnet.NewHost(t, "client", "10.88.1.2/24", "52:54:00:00:01:02")
	s, done := server(t, cfg)
	return h, s, done
}

// A stranger sends 16,000 requests from 200 forged addresses, and 100 from the machine's own. They start no
// transfer, and the machine boots beside them.
func TestForgedRequestsCostNoTransfer(t *testing.T) {
	testnet.Need(t, "ip", "curl")
	h, s, done := rackFor(t, Config{MaxTransfers: 64})
	stranger := testnet.NewHost(t, "stranger", "10.88.1.3/24", "")
	to := netip.MustParseAddrPort("10.88.1.1:69")
	for i := range 200 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 88, 1, byte(10 + i)}), 2070)
		var flood [][]byte
		for n := range 40 {
			flood = append(flood, rrq("snponly.efi", "blksize", fmt.Sprint(1400+n)))
		}
		// From one port and from forty: an address has a limit in both cases.
		stranger.Forge(t, src, to, flood...)
		for n := range 40 {
			stranger.Forge(t, netip.AddrPortFrom(src.Addr(), uint16(3000+n)), to, flood[0])
		}
	}
	// Also from the machine's own address.
	for n := range 100 {
		stranger.Forge(t, netip.MustParseAddrPort(fmt.Sprintf("10.88.1.2:%d", 4000+n)), to,
			rrq("snponly.efi"))
	}
	if unproven, running := s.counts(); running != 0 || unproven == 0 || unproven > maxUnproven {
		t.Errorf("%d transfers run and %d requests wait for their clients, want none and some, at most %d",
			running, unproven, maxUnproven)
	}
	got := filepath.Join(t.TempDir(), "got")
	start := time.Now()
	h.Run(t, "curl", "-sS", "--max-time", "10", "--tftp-blksize", "1468", "-o", got,
		"tftp://10.88.1.1/snponly.efi")
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, boot["snponly.efi"]) {
		t.Errorf("the machine got %d bytes, %v, want the file", len(b), err)
	}
	t.Logf("1 MiB in %v", time.Since(start).Round(time.Millisecond))
	for tr := ended(t, done); tr.Err != nil; tr = ended(t, done) {
		if !errors.Is(tr.Err, errSilent) && !errors.Is(tr.Err, errAgain) {
			t.Errorf("Done(%+v), want only what nobody acknowledged beside the machine's", tr)
		}
	}
}

// Clients that prove themselves and fall silent make room for others.
func TestSilentTransfersMakeRoom(t *testing.T) {
	t.Parallel()
	addr, done := serve(t, Config{Addr: "127.0.0.1:0", MaxTransfers: 4, MaxPerClient: 4})
	for range 4 {
		c := udp(t)
		if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi", "blksize", "1468"), addr); err != nil {
			t.Fatal(err)
		}
		_, from := receive(t, c)
		if _, err := c.WriteToUDPAddrPort(blockPacket(opAck, 0), from); err != nil {
			t.Fatal(err)
		}
		receive(t, c) // its first block; it never acknowledges that
	}
	if got, err := get(client(t, addr, 1468, true), "snponly.efi"); err != nil ||
		!bytes.Equal(got, boot["snponly.efi"]) {
		t.Fatalf("%d bytes, %v, want the file", len(got), err)
	}
	var whole, made int
	for range 2 {
		switch tr := ended(t, done); {
		case tr.Err == nil && tr.Bytes == 1<<20:
			whole++
		case errors.Is(tr.Err, errMakeRoom):
			made++
		default:
			t.Errorf("Done(%+v)", tr)
		}
	}
	if whole != 1 || made != 1 {
		t.Errorf("%d whole and %d that made room, want one of each", whole, made)
	}
}

// RFC 1350 section 7: an ERROR is never answered with an ERROR. A packet that belongs to no transfer is not
// answered either.
func TestAnErrorIsNotAnswered(t *testing.T) {
	t.Parallel()
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	for _, c := range []struct {
		name    string
		options []string
		acks    int // before the error
		packet  string
		aborted bool
	}{
		{"to the size", []string{"tsize", "0"}, 0, "\x00\x05\x00\x08User aborted the transfer\x00", true},
		{"to the first block", nil, 0, "\x00\x05\x00\x00\x00", false},
		{"in the middle", []string{"blksize", "1024"}, 5, "\x00\x05\x00\x03disk full\x00", false},
		{"in the middle, without its end", nil, 5, "\x00\x05\x00\x00", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := udp(t)
			if _, err := k.WriteToUDPAddrPort(rrq("snponly.efi", c.options...), addr); err != nil {
				t.Fatal(err)
			}
			b, from := receive(t, k)
			for range c.acks {
				block := []byte{0, 0}
				if b[1] == opData {
					block = b[2:4]
				}
				if _, err := k.WriteToUDPAddrPort([]byte{0, opAck, block[0], block[1]}, from); err != nil {
					t.Fatal(err)
				}
				b, _ = receive(t, k)
			}
			if _, err := k.WriteToUDPAddrPort([]byte(c.packet), from); err != nil {
				t.Fatal(err)
			}
			if tr := ended(t, done); tr.Aborted != c.aborted || (tr.Err == nil) != c.aborted {
				t.Errorf("Done(%+v), want aborted: %v", tr, c.aborted)
			}
			// An answer to these packets would arrive before that to the next request.
			other := udp(t)
			for _, p := range []string{c.packet, "\x00\x04\x00\x09", "\x00\x03\x00\x01x", "\x00\x09"} {
				if _, err := other.WriteToUDPAddrPort([]byte(p), from); err != nil { // nobody's transfer
					t.Fatal(err)
				}
			}
			if _, err := get(client(t, addr, 0, false), "tiny"); err != nil {
				t.Fatal(err)
			}
			ended(t, done)
			for name, s := range map[string]*net.UDPConn{"the client": k, "another": other} {
				_ = s.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if n, _, err := s.ReadFromUDPAddrPort(make([]byte, 2000)); !errors.Is(err,
					os.ErrDeadlineExceeded) {
					t.Errorf("%s was sent %d bytes, %v, want silence", name, n, err)
				}
			}
		})
	}
}

func TestRefusalsHaveFittingCodes(t *testing.T) {
	t.Parallel()
	s, done := server(t, Config{Addr: "127.0.0.1:0", MaxTransfers: 1})
	addr := s.Addr()
	for _, c := range []struct {
		name, packet string
		want         *refusal
		err          error
	}{
		{"not there", string(rrq("nope.efi")), errNotFound, nil},
		{"a broken opener", string(rrq("broken")), errInternal, nil},
		{"a forbidden one", string(rrq("forbidden")), errAccess, nil},
		{"a write request", "\x00\x02x\x00octet\x00", errReadOnly, nil},
		{"no mode", "\x00\x01undionly.kpxe\x00", errNoTFTP, ErrMalformed},
		{"no end of the name", "\x00\x01undionly.kpxe", errNoTFTP, ErrMalformed},
		{"mail", "\x00\x01undionly.kpxe\x00mail\x00", errNoTFTP, ErrMalformed},
		{"nothing in it", "\x00\x01", errNoTFTP, ErrMalformed},
		{"too long", string(rrq("undionly.kpxe", "x", string(make([]byte, 1400)))), errNoTFTP, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := udp(t)
			if _, err := k.WriteToUDPAddrPort([]byte(c.packet), addr); err != nil {
				t.Fatal(err)
			}
			if got, _ := receive(t, k); !bytes.Equal(got, c.want.packet()) {
				t.Errorf("refused with %q, want %q", got, c.want.packet())
			}
			tr := ended(t, done)
			if tr.Err == nil || c.err != nil && !errors.Is(tr.Err, c.err) || len(tr.Raw) > 64 {
				t.Errorf("Done(%+v), want an error that is %v", tr, c.err)
			}
		})
	}
	hold(t, s)
	k := udp(t)
	if _, err := k.WriteToUDPAddrPort(rrq("tiny", "tsize", "0"), addr); err != nil {
		t.Fatal(err)
	}
	_, from := receive(t, k)
	if _, err := k.WriteToUDPAddrPort(blockPacket(opAck, 0), from); err != nil {
		t.Fatal(err)
	}
	if got, _ := receive(t, k); !bytes.Equal(got, errBusy.packet()) {
		t.Errorf("a full server says %q, want %q", got, errBusy.packet())
	}
}

// A request that is repeated before its answer came gets the same answer, and one that is late does no harm.
func TestRepeatedRequests(t *testing.T) {
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	k := udp(t)
	ask := func() {
		t.Helper()
		if _, err := k.WriteToUDPAddrPort(rrq("exact", "blksize", "1468"), addr); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	first, from := receive(t, k)
	ask()
	if again, other := receive(t, k); !bytes.Equal(first, again) || from != other {
		t.Errorf("answered by %q from %v and by %q from %v, want the same", first, from, again, other)
	}
	var got []byte
	for block := uint16(0); ; block++ {
		if _, err := k.WriteToUDPAddrPort(blockPacket(opAck, block), from); err != nil {
			t.Fatal(err)
		}
		if block == 1 {
			ask() // the late one
		}
		if block == 3 {
			break
		}
		b, other := receive(t, k)
		if other != from || b[1] != opData {
			t.Fatalf("%q from %v, want data from %v", b[:4], other, from)
		}
		got = append(got, b[4:]...)
	}
	if tr := ended(t, done); !bytes.Equal(got, boot["exact"]) || tr.Err != nil {
		t.Errorf("%d bytes, Done(%+v), want the file", len(got), tr)
	}
	// The same port asks for the next file at once, as some ROMs do.
	if _, err := k.WriteToUDPAddrPort(rrq("tiny"), addr); err != nil {
		t.Fatal(err)
	}
	b, from := receive(t, k)
	if _, err := k.WriteToUDPAddrPort(blockPacket(opAck, 1), from); err != nil {
		t.Fatal(err)
	}
	if tr := ended(t, done); !bytes.Equal(b[4:], boot["tiny"]) || tr.Err != nil {
		t.Errorf("%q, Done(%+v), want the file", b, tr)
	}
}

// An observer that hangs or panics costs no transfer.
func TestSlowObserver(t *testing.T) {
	release := make(chan struct{})
	s, err := Listen(Config{Addr: "127.0.0.1:0", MaxTransfers: 1, Open: openBoot, Done: func(tr Transfer) {
		if tr.Name == "tiny" {
			panic("a bug in the observer")
		}
		<-release
	}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	t.Cleanup(func() { close(release) })
	for range 3 {
		for _, name := range []string{"tiny", "exact", "snponly.efi"} {
			if got, err := get(client(t, s.Addr(), 1468, true), name); err != nil ||
				!bytes.Equal(got, boot[name]) {
				t.Errorf("%s: %d bytes, %v, want the file", name, len(got), err)
			}
		}
	}
}

// A log that hangs costs no transfer, and a flood that should be logged keeps no other client out.
func TestSlowLog(t *testing.T) {
	read, write := io.Pipe() // nobody reads it
	s, _ := server(t,
		Config{
			Addr: "127.0.0.1:0",
			Log:  slog.New(slog.NewTextHandler(write, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	t.Cleanup(func() { read.Close() })
	for _, name := range []string{"tiny", "exact", "snponly.efi"} {
		if got, err := get(client(t, s.Addr(), 1468, true), name); err != nil ||
			!bytes.Equal(got, boot[name]) {
			t.Fatalf("%s: %d bytes, %v, want the file", name, len(got), err)
		}
	}
	flooder := netip.MustParseAddr("127.0.0.9")
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		for s.flood.admits(flooder, time.Now()) {
			continue
		}
	}()
	select {
	case <-flooded:
	case <-time.After(time.Minute):
		t.Fatal("to shut a flooding client out waits for the log")
	}
	if got, err := get(client(t, s.Addr(), 1468, true), "tiny"); err != nil ||
		!bytes.Equal(got, boot["tiny"]) {
		t.Errorf("after the flood: %d bytes, %v, want the file", len(got), err)
	}
}

// A netascii client gets the network's line ends, both in our first block and in the library's blocks.
func TestNetascii(t *testing.T) {
	addr, _ := serve(t, Config{Addr: "127.0.0.1:0"})
	for _, blksize := range []int{0, 1024} {
		c := client(t, addr, blksize, true)
		w, err := c.Receive("lines", "netascii")
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		// The client turns the line ends back.
		if _, err := w.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), boot["lines"]) {
			t.Errorf("block size %d: %d bytes, %v, want %d", blksize, b.Len(), err, len(boot["lines"]))
		}
	}
}
