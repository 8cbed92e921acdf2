package tftpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// boot is a map of files with the sizes where TFTP is easy to get wrong.
var boot = map[string][]byte{
	"undionly.kpxe": pattern(70_001),
	"exact":         pattern(2 * blockSize), // ends with an empty block
	"tiny":          pattern(3),
	"dir/empty":     {},
	"snponly.efi":   pattern(1 << 20),
	"lines":         bytes.Repeat([]byte("a line\nand\ranother\n"), 300),
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func openBoot(_ context.Context, r Request) ([]byte, error) {
	switch r.Name {
	case "panic":
		panic("a bug in the opener")
	case "forbidden":
		return nil, fs.ErrPermission
	case "broken":
		return nil, errors.New("open /var/lib/secret/place: input/output error")
	}
	b, ok := boot[r.Name]
	if !ok {
		return nil, fmt.Errorf("/var/lib/secret/%s: %w", r.Name, fs.ErrNotExist)
	}
	return b, nil
}

// serve runs a server until the test ends. Transfers arrive on the channel as they end.
func serve(t *testing.T, cfg Config) (netip.AddrPort, chan Transfer) {
	t.Helper()
	s, ended := server(t, cfg)
	return s.Addr(), ended
}

func server(t *testing.T, cfg Config) (*Server, chan Transfer) {
	t.Helper()
	ended := make(chan Transfer, maxUnproven)
	cfg.Done = func(tr Transfer) { ended <- tr }
	if cfg.Open == nil {
		cfg.Open = openBoot
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s, ended
}

func run(t testing.TB, s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil after the context ended", err)
		}
	})
}

func ended(t *testing.T, ch chan Transfer) Transfer {
	t.Helper()
	select {
	case tr := <-ch:
		return tr
	case <-time.After(time.Minute):
		t.Fatal("no transfer was reported within a minute")
		panic("unreachable")
	}
}

func client(t *testing.T, addr netip.AddrPort, blksize int, tsize bool) *tftp.Client {
	t.Helper()
	c, err := tftp.NewClient(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(2 * time.Second)
	if blksize > 0 {
		c.SetBlockSize(blksize)
	}
	c.RequestTSize(tsize)
	return c
}

func get(c *tftp.Client, name string) ([]byte, error) {
	w, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = w.WriteTo(&b)
	return b.Bytes(), err
}

func TestTransfers(t *testing.T) {
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	for _, c := range []struct {
		name, ask, file string
		blksize         int
		tsize           bool
	}{
		{"default block size", "undionly.kpxe", "undionly.kpxe", 0, false},
		{"1468", "undionly.kpxe", "undionly.kpxe", 1468, true},
		{"larger than we send", "/snponly.efi", "snponly.efi", 8192, true},
		{"a whole number of blocks", "exact", "exact", 1468, true},
		{"less than one block", "tiny", "tiny", 1468, true},
		{"empty, backslash", `\dir\empty`, "dir/empty", 1468, true},
		{"name with the END option", "snponly.efi\xff", "snponly.efi", 1400, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := get(client(t, addr, c.blksize, c.tsize), c.ask)
			if err != nil {
				t.Fatalf("get %q: %v", c.ask, err)
			}
			if !bytes.Equal(got, boot[c.file]) {
				t.Errorf("get %q: %d bytes that differ from the file's %d", c.ask, len(got),
					len(boot[c.file]))
			}
			tr := ended(t, done)
			if tr.Err != nil || tr.Aborted || tr.Bytes != int64(len(boot[c.file])) || tr.Name != c.file ||
				tr.Raw != c.ask {
				t.Errorf("Done(%+v), want %d bytes of %q and no error", tr, len(boot[c.file]), c.file)
			}
			if tr.Server != netip.MustParseAddr("127.0.0.1") || tr.Client.Port() == 0 {
				t.Errorf("Done: server %v, client %v, want 127.0.0.1 and the client's port", tr.Server,
					tr.Client)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	for _, c := range []struct{ name, ask, want string }{
		{"no such file", "nope.efi", "file not found"},
		{"a failing opener", "broken", "server error"},
		{"a panicking opener", "panic", "server error"},
		{"still there after the panic", "autoexec.ipxe", "file not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// iPXE asks once, and waits for this answer before it goes on.
			k := udp(t)
			if _, err := k.WriteToUDPAddrPort(rrq(c.ask, "blksize", "1468", "tsize", "0"), addr); err != nil {
				t.Fatal(err)
			}
			got, _ := receive(t, k)
			if got[1] != opError || !bytes.Contains(got, []byte(c.want)) {
				t.Errorf("get %q: answered %q, want an error with %q", c.ask, got, c.want)
			}
			if bytes.Contains(got, []byte("secret")) {
				t.Errorf("get %q: error %q names a path of the server", c.ask, got)
			}
			if tr := ended(t, done); tr.Err == nil {
				t.Errorf("Done(%+v), want an error", tr)
			}
		})
	}
}

func TestWritingIsRefused(t *testing.T) {
	addr, _ := serve(t, Config{Addr: "127.0.0.1:0"})
	r, err := client(t, addr, 0, false).Send("undionly.kpxe", "octet")
	if err == nil {
		_, err = r.ReadFrom(strings.NewReader("evil"))
	}
	if err == nil || !strings.Contains(err.Error(), "write requests") {
		t.Errorf("put: error %v, want a refusal", err)
	}
}

// rrq is a read request with options, as firmware sends it.
func rrq(name string, options ...string) []byte {
	return []byte("\x00\x01" + name + "\x00octet\x00" + strings.Join(append(options, ""), "\x00"))
}

// udp is a plain socket towards the server: the clients below misbehave on purpose.
func udp(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	return c
}

func receive(t *testing.T, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 2000)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n], from
}

// EDK2's PXE client first asks for the size only and hangs up with an ERROR.
func TestSizeProbeIsNoFailure(t *testing.T) {
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	c := udp(t)
	if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi", "tsize", "0", "blksize", "1468", "windowsize", "4"),
		addr); err != nil {
		t.Fatal(err)
	}
	oack, from := receive(t, c)
	for _, want := range []string{"\x00\x06", "tsize\x001048576\x00", "blksize\x001468\x00"} {
		if !bytes.Contains(oack, []byte(want)) {
			t.Errorf("OACK %q, want %q in it", oack, want)
		}
	}
	if from.Port() == addr.Port() {
		t.Errorf("OACK from port %d, want a port of the transfer's own", from.Port())
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x05\x00\x08User aborted the transfer\x00"),
		from); err != nil {
		t.Fatal(err)
	}
	if tr := ended(t, done); !tr.Aborted || tr.Err != nil || tr.Bytes != 0 {
		t.Errorf("Done(%+v), want it aborted without an error", tr)
	}
}

func TestLostPacketsAreSentAgainAndCounted(t *testing.T) {
	t.Parallel()
	addr, done := serve(t, Config{Addr: "127.0.0.1:0"})
	c := udp(t)
	if _, err := c.WriteToUDPAddrPort(rrq("tiny"), addr); err != nil {
		t.Fatal(err)
	}
	first, _ := receive(t, c) // and lose it
	again, from := receive(t, c)
	if !bytes.Equal(first, again) {
		t.Errorf("sent again as %q, want %q", again, first)
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x01"), from); err != nil {
		t.Fatal(err)
	}
	if tr := ended(t, done); tr.Err != nil || tr.Retransmits != 1 {
		t.Errorf("Done(%+v), want one retransmission and no error", tr)
	}
}

func TestFullServerSaysSo(t *testing.T) {
	t.Parallel()
	s, done := server(t, Config{Addr: "127.0.0.1:0", MaxTransfers: 1})
	hold(t, s)
	_, err := get(client(t, s.Addr(), 1468, true), "tiny")
	if err == nil || !strings.Contains(err.Error(), "server busy") {
		t.Errorf("get beyond the limit: error %v, want server busy", err)
	}
	if tr := ended(t, done); tr.Err == nil || tr.Name != "tiny" {
		t.Errorf("Done(%+v), want the refusal of tiny", tr)
	}
}

func TestGarbageIsSurvived(t *testing.T) {
	addr, _ := serve(t, Config{Addr: "127.0.0.1:0"})
	c := udp(t)
	for _, p := range []string{
		"", "\x00", "\x00\x01", "\x00\x01\x00\x00", "\x00\x01name",
		"\x00\x05\x00\x00\x00", "\x00\x09zz", "\xff\xff\xff\xff",
		string(rrq("tiny", "blksize", "99999999999999999999", "tsize", "-1")),
	} {
		if _, err := c.WriteToUDPAddrPort([]byte(p), addr); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := get(client(t, addr, 0, false), "tiny"); err != nil || !bytes.Equal(got, boot["tiny"]) {
		t.Errorf("get after garbage = %q, %v, want the file", got, err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	addr, _ := serve(t, Config{Addr: "127.0.0.1:0"})
	_, err := Listen(Config{Addr: addr.String(), Open: openBoot})
	if want := fmt.Sprintf("UDP port %d", addr.Port()); err == nil || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(), "ss -ulpn") {
		t.Errorf("a second Listen: error %v, want one with %q and what to run", err, want)
	}
}

func TestStopDoesNotWaitForSilentClients(t *testing.T) {
	s, err := Listen(Config{Addr: "127.0.0.1:0", Open: openBoot})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	c := udp(t)
	if _, err := c.WriteToUDPAddrPort(rrq("snponly.efi"), s.Addr()); err != nil {
		t.Fatal(err)
	}
	receive(t, c) // and never say a word again
	cancel()
	select {
	case err := <-ran:
		if err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
	case <-time.After(shutdownGrace + time.Minute):
		t.Error("Run still waits for a client that went away")
	}
}
