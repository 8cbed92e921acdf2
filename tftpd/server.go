package tftpd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
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
	// 1500 of Ethernet less 20 IP, 8 UDP and 4 TFTP. The library clamps to MTU-28 and
	// forgets its own 4 bytes; the fragments that follow are what many ROMs drop.
	blockSize = 1468

	// A boot ROM that is still there acknowledges within milliseconds; one that went
	// away is given up after about (1+retries) seconds.
	ackTimeout = time.Second
	retries    = 8

	// A client that acknowledges just in time, every time, must not keep a slot for ever.
	transferTimeout = 10 * time.Minute

	// A running transfer ends at once when we stop.
	shutdownGrace = time.Second

	// How often what is due is looked for: packets to send again, clients that went away.
	tick = 100 * time.Millisecond

	// An Opener has what it opens in memory.
	openTimeout = time.Second

	// Ports that transfers leave from. A client that uses one port again and again is not mistaken for who it was before,
	// and who forges an address must guess more.
	transferPorts = 32
	// Goroutines that read requests.
	requestReaders = 4
	// After a read error that is not the end.
	readPause = 100 * time.Millisecond

	// A rack of 1000 machines that is switched on at once fits. A transfer costs about
	// 12 KiB and a goroutine.
	defaultMaxTransfers = 2048
	// Room for some 5000 requests. With the kernel's default, 208 KiB, 1000 machines that
	// boot at once lost 265 to 446 of theirs, each of which cost the machine 5 s; with this
	// none (the row boot-storm of lab/bench).
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
	Done         func(Transfer) // told of every request once it has ended, by one goroutine; may be nil
	MaxTransfers int            // at once, 2048 when 0; as many more wait for half a second
	MaxPerClient int            // at once from one address, 32 when 0
	// Client names the machine behind an address, so that what was learned of its wire
	// outlives its address; "" when it is not known. May be nil.
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
	stalls *stalls
	sieve  *sieve
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
	s := &Server{cfg: cfg, conn: conn, stalls: newStalls(time.Now), exchanges: newExchanges()}
	s.engine = newEngineConn(conn.LocalAddr(), s.fromEngine)
	if err := s.open(addr.IP); err != nil {
		s.close()
		return nil, fmt.Errorf("tftp: %w", err)
	}
	s.ended = observe.New(cfg.Log, "TFTP transfers", cfg.Done)
	return s, nil
}

// open opens the ports of transfers and the filter of requests.
func (s *Server) open(ip net.IP) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := enlarge(raw); err != nil {
		return err
	}
	if s.sieve, err = newSieve(raw, s.cfg.Log); err != nil {
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

// Close closes the sockets of a server that will not run.
func (s *Server) Close() error {
	s.ended.Close()
	return s.close()
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.ended.Close()
	srv := tftp.NewServer(func(_ string, rf io.ReaderFrom) error { return s.transfer(ctx, rf) }, nil)
	srv.EnableSinglePort()
	srv.SetBlockSizeNegotiation(false) // an interface's MTU is our business, see mtus
	srv.SetBlockSize(blockSize)
	srv.SetTimeout(2 * transferTimeout) // and so are clients that do not answer, see due

	served := make(chan error, 1)
	go func() {
		for { // after a bug of the library, which loses none of what runs, it goes on
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
			for readers.Err() == nil { // after a bug it goes on
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

// readRequests reads what comes to the port that everybody knows.
func (s *Server) readRequests(ctx context.Context) {
	buf, oob := make([]byte, maxRequest+1), ipv4.NewControlMessage(ipv4.FlagDst|ipv4.FlagInterface)
	var cm ipv4.ControlMessage
	for ctx.Err() == nil {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(readPause)
			continue
		}
		local, ifindex := netip.Addr{}, 0
		if cm.Parse(oob[:oobn]) == nil {
			local, _ = netip.AddrFromSlice(cm.Dst)
			ifindex = cm.IfIndex
		}
		s.request(ctx, bytes.Clone(buf[:n]), unmapped(from), local.Unmap(), ifindex)
	}
}

// request answers one request, without a transfer: that waits until the client has proved itself.
func (s *Server) request(ctx context.Context, raw []byte, from netip.AddrPort, local netip.Addr, ifindex int) {
	now := time.Now()
	if !s.sieve.admits(from.Addr(), now) {
		return
	}
	if s.again(raw, from, now) {
		return
	}
	e := &exchange{born: now, port: s.ports[rand.N(len(s.ports))], said: string(raw)}
	e.Client, e.Server = from, local
	refuse := func(r *refusal, err error) {
		e.Err, e.Took = err, time.Since(now)
		s.send(e.port, from, local, r.packet())
		s.report(e.Transfer)
	}
	w, write, err := parseRequest(raw)
	e.wish, e.Raw, e.Name = w, w.name, Normalise(w.name)
	switch {
	case err != nil:
		e.Raw = string(raw[min(2, len(raw)):min(64, len(raw))])
		refuse(errNoTFTP, err)
		return
	case write:
		refuse(errReadOnly, errReadOnly)
		return
	}
	e.client = s.clientOf(from.Addr())
	if e.data, err = s.openFile(ctx, e.Request); err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			refuse(errNotFound, err)
		case errors.Is(err, fs.ErrPermission):
			refuse(errAccess, err)
		default:
			refuse(errInternal, err)
		}
		return
	}
	e.BlockSize, _ = e.blockSize(min(s.stalls.limit(e.client, from.Addr()), s.mtus.blockSize(ifindex, now)))
	e.last, e.sent = e.begin(), now
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	switch before := s.exchanges.byClient[from]; {
	case before == nil:
	case before.whole(): // the library is about to say so
		s.leave(before)
	default:
		s.end(before, errAgain)
	}
	if oldest := s.exchanges.oldest(from.Addr(), s.cfg.MaxPerClient); oldest != nil {
		s.dropUnproven(oldest, now)
	}
	s.exchanges.add(e)
	s.send(e.port, e.Client, e.Server, e.last)
}

// again answers a request that came before, and whose answer was perhaps lost, as it was answered then. One of a client
// whose transfer runs was late, and is no wish to begin anew.
func (s *Server) again(raw []byte, from netip.AddrPort, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exchanges.byClient[from]
	switch {
	case e == nil || e.said != string(raw) || e.whole():
		return false
	case !e.proved.IsZero():
		return now.Sub(e.heard) < silentFor
	}
	e.Retransmits++
	e.sent = now
	s.send(e.port, e.Client, e.Server, e.last)
	return true
}

// openFile asks the Opener, whose bugs are ours to survive.
func (s *Server) openFile(ctx context.Context, r Request) (file []byte, err error) {
	defer bug.Return(s.cfg.Log, "tftp: open "+strconv.Quote(r.Name), &err)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return s.cfg.Open(ctx, r)
}

// readAnswers reads what clients say to a transfer.
func (s *Server) readAnswers(ctx context.Context, p *port) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(readPause)
			continue
		}
		s.answer(p, unmapped(from), buf[:n], time.Now())
	}
}

// answer takes what a client says to a transfer. What does not fit is not answered: an ERROR never is (RFC 1350 section
// 7), and what came late would only confuse a client that goes on.
func (s *Server) answer(p *port, from netip.AddrPort, b []byte, now time.Time) {
	if len(b) < 4 || b[0] != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exchanges.byClient[from]
	if e == nil || e.port != p {
		return
	}
	switch {
	case b[1] == opError:
		s.end(e, clientErrorOf(b))
	case b[1] != opAck || binary.BigEndian.Uint16(b[2:]) != e.awaits:
	case e.proved.IsZero():
		e.proved, e.heard = now, now
		s.exchanges.leaveUnproven(e)
		s.admit(e, now)
	case e.waiting:
		e.waiting, e.heard = false, now
		s.engine.give(e.from(), blockPacket(opAck, e.awaits))
	}
}

// admit gives a transfer to a client that has proved itself, or has it wait for one.
func (s *Server) admit(e *exchange, now time.Time) {
	if !s.start(e, now) {
		if len(s.exchanges.waiting) >= s.cfg.MaxTransfers {
			s.refuse(e, fmt.Errorf("all %d transfers are busy, and as many wait", s.cfg.MaxTransfers))
			return
		}
		s.exchanges.waiting = append(s.exchanges.waiting, e)
	}
}

// start starts a transfer if there is one to be had.
func (s *Server) start(e *exchange, now time.Time) bool {
	x := &s.exchanges
	silent := func(among func(*exchange) bool) bool {
		o := x.mostSilent(among)
		if o == nil || now.Sub(o.heard) < silentFor {
			return false
		}
		s.end(o, errMakeRoom)
		return true
	}
	if x.running >= s.cfg.MaxTransfers && !silent(func(*exchange) bool { return true }) {
		return false
	}
	try, ok := s.stalls.begin(e.client, e.Client.Addr(), e.BlockSize, s.cfg.MaxPerClient)
	if !ok && silent(func(o *exchange) bool { return o.Client.Addr() == e.Client.Addr() }) {
		try, ok = s.stalls.begin(e.client, e.Client.Addr(), e.BlockSize, s.cfg.MaxPerClient)
	}
	if !ok {
		return false
	}
	e.try, e.echo, e.tries = try, true, 0
	x.running++
	x.byID[e.id] = e
	s.engine.give(e.from(), e.request())
	return true
}

// fromEngine is what the library sends to a client.
func (s *Server) fromEngine(id uint64, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exchanges.byID[id]
	switch {
	case e == nil || len(b) < 4:
	case e.ending != nil && b[1] != opError:
		s.engine.give(e.from(), (&refusal{0, "end"}).packet())
	case b[1] == opError: // only when we told it to end, in our own words
	case e.echo && (b[1] == opOack || e.awaits == 1):
		e.echo = false
		s.engine.give(e.from(), blockPacket(opAck, e.awaits))
	default:
		e.echo = false
		e.last = append(e.last[:0], b...)
		e.awaits, e.sent, e.tries, e.waiting = binary.BigEndian.Uint16(b[2:]), time.Now(), 0, true
		s.send(e.port, e.Client, e.Server, b)
	}
}

// transfer is the library's, on a goroutine of its own.
func (s *Server) transfer(ctx context.Context, rf io.ReaderFrom) (err error) {
	peer := rf.(tftp.OutgoingTransfer).RemoteAddr()
	s.mu.Lock()
	e := s.exchanges.byID[numberOf(&peer)]
	if e == nil {
		s.mu.Unlock()
		return errInternal
	}
	try := e.try
	s.mu.Unlock()
	var n int64
	defer func() { s.over(e, n, err) }()
	defer bug.Return(s.cfg.Log, "tftp: send "+strconv.Quote(e.Name), &err)
	if try == nil { // it was ended before it began
		return errStopping
	}
	n, err = rf.ReadFrom(&contextReader{ctx, bytes.NewReader(e.data), try})
	return err
}

// over is called when the library has let go of a transfer.
func (s *Server) over(e *exchange, n int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Bytes = n
	delete(s.exchanges.byID, e.id)
	if e.ending != nil {
		err = e.ending
	}
	s.settle(e, err)
	s.admitWaiting(time.Now())
}

// end ends an exchange before its end. A transfer that runs is reported when the library has let go of it.
func (s *Server) end(e *exchange, why error) {
	if e.settled || e.ending != nil {
		return
	}
	if e.try == nil {
		var hungUp *clientError
		if errors.As(why, &hungUp) && e.last[1] == opOack {
			e.Aborted, why = true, nil
		}
		s.settle(e, why)
		return
	}
	e.ending = why
	s.leave(e)
	if e.waiting {
		e.waiting = false
		s.engine.give(e.from(), (&refusal{0, "end"}).packet())
	}
}

// leave takes an exchange out of what clients' packets find, and gives its transfer to others.
func (s *Server) leave(e *exchange) {
	if s.exchanges.byClient[e.Client] == e {
		delete(s.exchanges.byClient, e.Client)
	}
	if e.try != nil {
		s.stalls.end(e.try, e.whole())
		s.exchanges.running--
		e.try = nil
	}
}

// settle reports an exchange that is over.
func (s *Server) settle(e *exchange, err error) {
	if e.settled {
		return
	}
	if e.proved.IsZero() {
		s.exchanges.leaveUnproven(e)
	}
	e.Err, e.settled, e.Took = err, true, time.Since(e.born)
	s.leave(e)
	s.exchanges.waiting = slices.DeleteFunc(s.exchanges.waiting, func(o *exchange) bool { return o == e })
	s.report(e.Transfer)
}

// refuse ends an exchange for which there is no room.
func (s *Server) refuse(e *exchange, why error) {
	s.send(e.port, e.Client, e.Server, errBusy.packet())
	s.settle(e, why)
}

// dropUnproven forgets a request of a client that has not proved itself, for another one. During a flood of them the log
// says so, and not the timeline.
func (s *Server) dropUnproven(e *exchange, now time.Time) {
	s.exchanges.leaveUnproven(e)
	e.settled = true
	s.leave(e)
	if now.Sub(s.crowded) >= time.Minute {
		s.crowded = now
		s.cfg.Log.Warn("tftp: more requests that nobody acknowledges than are remembered; the oldest are forgotten", "client", e.Client, "name", e.Name)
	}
}

func (s *Server) admitWaiting(now time.Time) {
	for len(s.exchanges.waiting) > 0 {
		e := s.exchanges.waiting[0]
		if !s.start(e, now) {
			return
		}
		s.exchanges.waiting = s.exchanges.waiting[1:]
	}
}

func (s *Server) lookForDue(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.due(now)
		}
	}
}

// due sends again what was lost, and gives up clients that went away.
func (s *Server) due(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &s.exchanges
	quiet := x.count < maxUnproven/4
	for _, e := range x.order {
		switch age := now.Sub(e.sent); {
		case !x.isUnproven(e):
		case now.Sub(e.born) >= (1+retries)*ackTimeout:
			s.settle(e, errSilent)
		case quiet && e.tries < unprovenRetries && age >= ackTimeout<<e.tries:
			s.resend(e, now)
		}
	}
	x.order = slices.DeleteFunc(x.order, func(e *exchange) bool { return !x.isUnproven(e) })
	for _, e := range x.byID {
		switch {
		case e.ending != nil || e.settled:
		case now.Sub(e.born) >= transferTimeout:
			s.end(e, errTooLong)
		case !e.waiting || now.Sub(e.sent) < ackTimeout:
		case e.tries >= retries:
			s.end(e, errSilent)
		default:
			s.resend(e, now)
		}
	}
	s.admitWaiting(now)
	for len(x.waiting) > 0 && now.Sub(x.waiting[0].proved) >= slotWait {
		s.refuse(x.waiting[0], errors.New("all transfers, or all that this address may have, are busy"))
	}
}

func (s *Server) resend(e *exchange, now time.Time) {
	e.tries++
	e.Retransmits++
	e.sent = now
	s.send(e.port, e.Client, e.Server, e.last)
}

// stop ends all that is under way, and tells the clients.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for _, e := range s.exchanges.byClient {
		s.send(e.port, e.Client, e.Server, (&refusal{0, errStopping.Error()}).packet())
		s.end(e, errStopping)
	}
}

// send sends a packet from the address that the client asked. One that cannot be sent is as one that was lost.
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
	log := s.cfg.Log.With("name", t.Name, "client", t.Client, "server", t.Server, "bytes", t.Bytes, "took", t.Took.Round(time.Millisecond))
	switch {
	case t.Aborted:
		log.Debug("tftp: size asked")
	case t.Err != nil:
		log.Warn("tftp: not sent", "raw", t.Raw, "blksize", t.BlockSize, "retransmits", t.Retransmits, "err", t.Err)
	default:
		log.Info("tftp: sent", "blksize", t.BlockSize, "retransmits", t.Retransmits)
	}
	s.ended.Put(t)
}

// A contextReader ends a transfer at the next block once its context has ended, and
// notes that it moves: the library reads a block when the one before is acknowledged.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	try *attempt
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, errStopping
	}
	c.try.touch(time.Now())
	return c.r.Read(p)
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
