package tftpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// 1500 of Ethernet less 20 IP, 8 UDP and 4 TFTP. The library clamps to MTU-28 and
	// forgets its own 4 bytes; the fragments that follow are what many ROMs drop.
	blockSize = 1468

	// A boot ROM that is still there acknowledges within milliseconds; one that went
	// away is given up after about (1+retries) seconds.
	ackTimeout = time.Second
	retries    = 8

	// A client that acknowledges just in time, every time, must not keep a slot for ever.
	transferTimeout = 10 * time.Minute

	// How long a request waits for a free slot. Shorter than any client's retransmission.
	slotWait = 500 * time.Millisecond

	// A running transfer ends within a block of the stop, a silent client only
	// after its retries; nobody waits for those.
	shutdownGrace = 1500 * time.Millisecond

	// A rack of 1000 machines that is switched on at once fits. A transfer costs about
	// 12 KiB, a socket and a goroutine.
	defaultMaxTransfers = 2048
	// Room for some 5000 requests. With the kernel's default, 208 KiB, 1000 machines that
	// boot at once lost 265 to 446 of theirs, each of which cost the machine 5 s; with this
	// none (the row boot-storm of lab/bench).
	receiveBuffer = 4 << 20
	// A ROM loads one file at a time, but a machine that boots again leaves its last
	// transfer running until that is given up.
	defaultMaxPerClient = 32
)

// What clients are told. Never an error's own text: it may name paths of this host.
var (
	errNotFound = errors.New("file not found")
	errBusy     = errors.New("server busy")
	errInternal = errors.New("server error")
	errReadOnly = errors.New("server does not support write requests")
)

// A Request is one read request.
type Request struct {
	Name   string         // normalised, see Normalise
	Raw    string         // as it was asked for
	Client netip.AddrPort // its port is the transfer's, not 69
	Server netip.Addr     // our address that the client asked; transfers leave from it
}

// Open returns the whole file: boot files are small and in memory. An error that is
// fs.ErrNotExist tells the client at once that there is no such file.
type Opener func(context.Context, Request) ([]byte, error)

// A Transfer is one read request that has ended.
type Transfer struct {
	Request
	Bytes       int64
	Took        time.Duration
	BlockSize   int // the largest packet's data; smaller than asked for after a stall
	Retransmits int // packets sent again because no acknowledgement came
	// Aborted: the client asked for the size, got it and hung up. UEFI does so
	// before every download; it is no failure and Err is nil.
	Aborted bool
	Err     error
}

// Config is what a Server needs. Open is required.
type Config struct {
	Addr         string // ":69" when empty
	Open         Opener
	Done         func(Transfer) // told of every request once it has ended; may be nil
	MaxTransfers int            // at once, 2048 when 0; as many more wait for half a second
	MaxPerClient int            // at once from one address, 32 when 0
	// Client names the machine behind an address, so that what was learned of its wire
	// outlives its address; "" when it is not known. May be nil.
	Client func(netip.Addr) string
	Log    *slog.Logger // nothing is logged when nil
}

// A Server answers TFTP read requests.
type Server struct {
	cfg     Config
	conn    *net.UDPConn
	slots   chan struct{}
	waiting atomic.Int64
	stats   statistics
	stalls  *stalls
	sieve   *sieve
}

// Listen opens the socket, so that a port that is taken is an error here.
func Listen(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = ":69"
	}
	if cfg.MaxTransfers <= 0 {
		cfg.MaxTransfers = defaultMaxTransfers
	}
	if cfg.MaxPerClient <= 0 {
		cfg.MaxPerClient = defaultMaxPerClient
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Done == nil {
		cfg.Done = func(Transfer) {}
	}
	// udp4: PXE is IPv4 here, and only on an IPv4 socket do we learn the plain
	// address that the client asked.
	addr, err := net.ResolveUDPAddr("udp4", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("tftp: listen address %q: %w", cfg.Addr, err)
	}
	conn, err := net.ListenUDP("udp4", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("tftp: another program listens on UDP port %d (find it with `ss -ulpn 'sport = :%d'`): %w", addr.Port, addr.Port, err)
	case err != nil:
		return nil, fmt.Errorf("tftp: %w", err)
	}
	// The library asks for this too, but only in Serve: a request that arrived before
	// would have no local address and small blocks.
	if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tftp: ask for the destination address of requests: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = enlarge(raw)
	}
	var dam *sieve
	if err == nil {
		dam, err = newSieve(raw, cfg.Log)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("tftp: %w", err)
	}
	return &Server{cfg: cfg, conn: conn, slots: make(chan struct{}, cfg.MaxTransfers), stalls: newStalls(time.Now), sieve: dam}, nil
}

// enlarge gives the socket its receive buffer. Without CAP_NET_ADMIN net.core.rmem_max
// bounds it; less is no error.
func enlarge(raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
}

// Addr is the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes the socket of a server that will not run.
func (s *Server) Close() error { return s.conn.Close() }

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	srv := tftp.NewServer(func(raw string, rf io.ReaderFrom) error { return s.read(ctx, raw, rf) }, s.write)
	srv.SetTimeout(ackTimeout)
	srv.SetRetries(retries)
	srv.SetBackoff(func(int) time.Duration { return 0 }) // the timeout is the pause
	srv.SetBlockSize(blockSize)
	srv.SetHook(&s.stats)

	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.conn) }()
	select {
	case err := <-served:
		return fmt.Errorf("tftp: %w", err)
	case <-ctx.Done():
	}
	stopped := make(chan struct{})
	go func() { srv.Shutdown(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(shutdownGrace):
	}
	return nil
}

// read answers one request and reports it. The error that it returns is what the
// client reads. It must never return nil without having sent something: the library
// would leave the transfer's socket open.
func (s *Server) read(ctx context.Context, raw string, rf io.ReaderFrom) (reply error) {
	start := time.Now()
	peer := rf.(tftp.OutgoingTransfer).RemoteAddr()
	t := Transfer{Request: Request{Name: Normalise(raw), Raw: raw, Client: unmapped(peer.AddrPort())}}
	if !s.sieve.admits(t.Client.Addr(), start) {
		return errBusy
	}
	if local, ok := netip.AddrFromSlice(rf.(tftp.RequestPacketInfo).LocalIP()); ok {
		t.Server = local.Unmap()
	}
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("tftp: panic", "name", t.Name, "client", t.Client, "panic", p, "stack", string(debug.Stack()))
			t.Err, reply = fmt.Errorf("panic: %v", p), errInternal
		}
		t.Took = time.Since(start)
		s.done(t)
	}()

	if !s.acquire(ctx) {
		t.Err = fmt.Errorf("all %d transfers are busy", cap(s.slots))
		return errBusy
	}
	defer func() { <-s.slots }()
	options := optionsOf(rf)
	lowerNames(options)
	try, ok := s.stalls.begin(s.client(t.Client.Addr()), t.Client.Addr(), options, s.cfg.MaxPerClient)
	if !ok {
		t.Err = fmt.Errorf("this address has %d transfers running", s.cfg.MaxPerClient)
		return errBusy
	}
	t.BlockSize = try.block
	defer func() { s.stalls.end(try, t.Err == nil) }()
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()

	file, err := s.cfg.Open(ctx, t.Request)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.Err = err
		return errNotFound
	case err != nil:
		t.Err = err
		return errInternal
	}
	rf.(tftp.OutgoingTransfer).SetSize(int64(len(file)))
	t.Bytes, err = rf.ReadFrom(&contextReader{ctx, bytes.NewReader(file), try})
	t.Retransmits = s.stats.take(t.Client)
	if err != nil && isSizeProbe(err) {
		t.Aborted = true
		return err // the socket is closed by now; nothing more is sent
	}
	t.Err = err
	return err
}

// write refuses a write request.
func (s *Server) write(_ string, wt io.WriterTo) error {
	peer := wt.(tftp.IncomingTransfer).RemoteAddr()
	s.sieve.admits(unmapped(peer.AddrPort()).Addr(), time.Now()) // it counts like any other
	return errReadOnly
}

// client is the key under which a client is remembered.
func (s *Server) client(addr netip.Addr) string {
	if s.cfg.Client != nil {
		if name := s.cfg.Client(addr); name != "" {
			return name
		}
	}
	return addr.String()
}

func (s *Server) done(t Transfer) {
	log := s.cfg.Log.With("name", t.Name, "client", t.Client, "server", t.Server, "bytes", t.Bytes, "took", t.Took.Round(time.Millisecond))
	switch {
	case t.Aborted:
		log.Debug("tftp: size asked")
	case t.Err != nil:
		log.Warn("tftp: not sent", "raw", t.Raw, "blksize", t.BlockSize, "retransmits", t.Retransmits, "err", t.Err)
	default:
		log.Info("tftp: sent", "blksize", t.BlockSize, "retransmits", t.Retransmits)
	}
	// Its own recover: this runs in the handler's defer, beyond the other one.
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("tftp: panic", "client", t.Client, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	s.cfg.Done(t)
}

// acquire takes a slot. As many requests may wait for one as there are slots; the
// rest are refused at once, so that a flood costs a bounded number of sockets.
func (s *Server) acquire(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > int64(cap(s.slots)) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, slotWait)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// isSizeProbe reports that the client sent an ERROR in answer to our OACK, which the
// library knows as block 0. It has no error type for it, only this text.
func isSizeProbe(err error) bool { return strings.HasPrefix(err.Error(), "sending block 0: code=") }

// A contextReader ends a transfer at the next block once its context has ended, and
// notes that it moves: the library reads a block when the one before is acknowledged.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	try *attempt
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, errors.New("server is stopping, or the transfer took too long")
	}
	c.try.touch(time.Now())
	return c.r.Read(p)
}

// statistics keeps what the library's hook tells until the handler, which runs on the
// same goroutine right after it, takes it.
type statistics struct {
	retransmits sync.Map // netip.AddrPort of the client → int
}

func (s *statistics) OnSuccess(st tftp.TransferStats)          { s.keep(st, 0) }
func (s *statistics) OnFailure(st tftp.TransferStats, _ error) { s.keep(st, 1) }

// keep is told how many of the packets sent were never acknowledged at all.
func (s *statistics) keep(st tftp.TransferStats, lost int) {
	ip, ok := netip.AddrFromSlice(st.RemoteAddr)
	// Refusals and packets that are no request also come here; nobody takes those.
	if again := st.DatagramsSent - st.DatagramsAcked - lost; ok && again > 0 {
		s.retransmits.Store(netip.AddrPortFrom(ip.Unmap(), uint16(st.Tid)), again)
	}
}

func (s *statistics) take(client netip.AddrPort) int {
	n, _ := s.retransmits.LoadAndDelete(client)
	again, _ := n.(int)
	return again
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
