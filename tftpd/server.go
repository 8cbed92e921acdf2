package tftpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/observe"
)

const (
	// 1500 of Ethernet less 20 IP, 8 UDP and 4 TFTP. The library limits blocks to MTU-28 and forgets its own
	// 4 bytes; many ROMs drop the fragments that follow from that.
	blockSize = 1468

	// A boot ROM acknowledges within milliseconds. One that went away is given up after about (1+retries)
	// seconds.
	ackTimeout = time.Second
	retries    = 8

	// A client that always acknowledges just in time must not keep a transfer for ever.
	transferTimeout = 10 * time.Minute

	// How long Run waits at its end for the library's transfers.
	shutdownGrace = time.Second

	// How often we look for packets to send again and for clients that went away.
	tick = 100 * time.Millisecond

	// Long for an Opener, which has its files in memory.
	openTimeout = time.Second

	// How many ports transfers leave from. With several, a client that uses one of its ports again is not
	// mistaken for its own former transfer, and somebody who forges an address must guess more.
	transferPorts = 32
	// Goroutines that read requests.
	requestReaders = 4
	// Pause after a read error that does not end the server.
	readPause = 100 * time.Millisecond

	// A rack of 1000 machines that is switched on at once fits. A transfer costs about
	// 12 KiB and a goroutine.
	defaultMaxTransfers = 2048
	// Room for some 5000 requests. With the kernel's default, 208 KiB, 1000 machines that
	// boot at once lost 265 to 446 of theirs, each of which cost the machine 5 s; with this
	// none (the row boot-storm of bench).
	receiveBuffer = 4 << 20
	// A ROM loads one file at a time, but a machine that boots again leaves its last
	// transfer running until that is given up.
	defaultMaxPerClient = 32
)

// A Request is one read request.
type Request struct {
	Name   string         // normalised, see Normalise
	Raw    string         // as it was asked for
	Client netip.AddrPort // its port is the transfer's, not 69
	Server netip.Addr     // our address that the client sent to; transfers leave from it
}

// An Opener returns the whole file: boot files are small and in memory. An error that is
// fs.ErrNotExist tells the client at once that there is no such file.
type Opener func(context.Context, Request) ([]byte, error)

// A Transfer is one read request that has ended.
type Transfer struct {
	Request
	Bytes       int64
	Took        time.Duration
	BlockSize   int // bytes of data in a full packet; smaller than asked for after a stall
	Retransmits int // packets sent again because no acknowledgement came
	// Aborted: the client asked for the size, got it and hung up. UEFI does so
	// before every download; it is no failure and Err is nil.
	Aborted bool
	Err     error
}

// Config is what a Server needs. Open is required.
type Config struct {
	Addr string // ":69" when empty
	Open Opener
	// Done is called by one goroutine for every request that has ended, except for unproven requests that are
	// forgotten in a flood. May be nil.
	Done         func(Transfer)
	MaxTransfers int // at once, 2048 when 0; as many more wait for half a second
	MaxPerClient int // at once from one address, 32 when 0
	// Client names the machine behind an address, "" when it is not known. What was learned of a machine's
	// wire is kept under this name, also when its address changes. May be nil.
	Client func(netip.Addr) string
	Log    *slog.Logger // nothing is logged when nil
}

// A Server answers TFTP read requests.
type Server struct {
	cfg    Config
	conn   *net.UDPConn
	ports  []*port
	engine *engineConn
	ended  *observe.Queue[Transfer]
	logged func() // writes the queued lines of the log
	stalls *stalls
	flood  *floodFilter
	mtus   mtus

	mu        sync.Mutex
	exchanges exchanges
	crowded   time.Time // when the log last said that unproven requests are dropped
	stopping  bool
}

// A port is a socket that transfers leave from.
type port struct{ conn *net.UDPConn }

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
	// udp4: PXE is IPv4 here, and only an IPv4 socket tells the plain address that the client sent to.
	addr, err := net.ResolveUDPAddr("udp4", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("tftp: listen address %q: %w", cfg.Addr, err)
	}
	conn, err := net.ListenUDP("udp4", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf(
			"tftp: another program listens on UDP port %d (find it with `ss -ulpn 'sport = :%d'`): %w",
			addr.Port, addr.Port, err)
	case err != nil:
		return nil, fmt.Errorf("tftp: %w", err)
	}
	// Here and not in Run: a request that arrives before Run needs its local address, too.
	if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tftp: ask for the destination address of requests: %w", err)
	}
	s := &Server{conn: conn, stalls: newStalls(time.Now), exchanges: newExchanges()}
	cfg.Log, s.logged = observe.Log(cfg.Log, "TFTP") // many of its lines are logged while s.mu is held
	s.cfg = cfg
	s.engine = newEngineConn(conn.LocalAddr(), s.fromEngine)
	if err := s.open(addr.IP); err != nil {
		s.close()
		s.logged()
		return nil, fmt.Errorf("tftp: %w", err)
	}
	s.ended = observe.New(cfg.Log, "TFTP transfers", cfg.Done)
	return s, nil
}

// open opens the ports of transfers and attaches the filter of requests.
func (s *Server) open(ip net.IP) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := enlarge(raw); err != nil {
		return err
	}
	if s.flood, err = newFloodFilter(raw, s.cfg.Log); err != nil {
		return err
	}
	for range transferPorts {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip})
		if err != nil {
			return fmt.Errorf("open a port for transfers: %w", err)
		}
		s.ports = append(s.ports, &port{conn})
	}
	return nil
}

func (s *Server) close() error {
	err := s.conn.Close()
	for _, p := range s.ports {
		err = errors.Join(err, p.conn.Close())
	}
	return err
}

// enlarge gives the socket its receive buffer. Without CAP_NET_ADMIN, net.core.rmem_max bounds it. A smaller
// buffer is no error.
func enlarge(raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
}

// Addr is the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes the sockets of a server that will not run.
func (s *Server) Close() error {
	defer s.logged()
	s.ended.Close()
	return s.close()
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.logged()
	defer s.ended.Close()
	srv := tftp.NewServer(func(_ string, rf io.ReaderFrom) error { return s.transfer(ctx, rf) }, nil)
	srv.EnableSinglePort()
	srv.SetBlockSizeNegotiation(false) // we know the interface's MTU: see mtus
	srv.SetBlockSize(blockSize)
	srv.SetTimeout(2 * transferTimeout) // we give up on silent clients: see due

	served := make(chan error, 1)
	go func() {
		defer bug.Recover(s.cfg.Log, "tftp: run transfers")
		for { // after a panic in the library, which keeps the running transfers, go on
			if finished, err := s.runEngine(srv); finished {
				served <- err
				return
			}
		}
	}()
	readers, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	start := func(doing string, f func(context.Context)) {
		all.Go(func() {
			defer bug.Recover(s.cfg.Log, "tftp: "+doing)
			for readers.Err() == nil { // after a panic, go on
				func() {
					defer bug.Recover(s.cfg.Log, "tftp: "+doing)
					f(readers)
				}()
			}
		})
	}
	for range requestReaders {
		start("read requests", s.readRequests)
	}
	for _, p := range s.ports {
		start("read acknowledgements", func(ctx context.Context) { s.readAnswers(ctx, p) })
	}
	start("look for what is due", s.lookForDue)
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("tftp: %w", err)
	case <-ctx.Done():
	}
	cancel()
	s.stop()
	closed := s.close()
	all.Wait()
	if err != nil {
		return errors.Join(err, closed)
	}
	s.engine.stop()
	srv.Shutdown()
	select {
	case <-served:
	case <-time.After(shutdownGrace): // a transfer whose file is being read
	}
	return nil
}

// runEngine runs the library. finished is false after a panic.
func (s *Server) runEngine(srv *tftp.Server) (finished bool, err error) {
	defer bug.Return(s.cfg.Log, "tftp: run transfers", &err)
	err = srv.Serve(s.engine)
	return true, err
}

// stop ends all exchanges, and tells their clients.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for _, e := range s.exchanges.byClient {
		s.send(e.port, e.Client, e.Server, (&refusal{0, errStopping.Error()}).packet())
		s.end(e, errStopping)
	}
}

// send sends a packet from the address that the client sent to. A packet that cannot be sent counts as lost.
func (s *Server) send(p *port, to netip.AddrPort, from netip.Addr, b []byte) {
	var oob []byte
	if from.Is4() && !from.IsMulticast() && from != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		oob = (&ipv4.ControlMessage{Src: from.AsSlice()}).Marshal()
	}
	if _, _, err := p.conn.WriteMsgUDPAddrPort(b, oob, to); err != nil {
		s.cfg.Log.Debug("tftp: send", "client", to, "err", err)
	}
}

// clientOf is the key under which a client is remembered.
func (s *Server) clientOf(addr netip.Addr) (name string) {
	defer bug.Recover(s.cfg.Log, "tftp: name a client")
	name = addr.String()
	if s.cfg.Client != nil {
		name = cmp.Or(s.cfg.Client(addr), name)
	}
	return name
}

// report logs a request that has ended, and tells the observer.
func (s *Server) report(t Transfer) {
	log := s.cfg.Log.With("name", t.Name, "client", t.Client, "server", t.Server, "bytes", t.Bytes,
		"took", t.Took.Round(time.Millisecond))
	switch {
	case t.Aborted:
		log.Debug("tftp: size asked")
	case t.Err != nil:
		log.Warn("tftp: not sent", "raw", t.Raw, "blksize", t.BlockSize, "retransmits", t.Retransmits,
			"err", t.Err)
	default:
		log.Info("tftp: sent", "blksize", t.BlockSize, "retransmits", t.Retransmits)
	}
	s.ended.Put(t)
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
