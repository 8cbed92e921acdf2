package dhcpd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/observe"
	"github.com/pxectl/pxectl/internal/sleep"
)

const (
	// Readers per socket. Each handles its packets itself, so this also bounds how many
	// Deciders run at once; what comes faster waits in the socket's buffer.
	readers = 4
	// Packets that a reader takes at once.
	batchSize = 64
	// A reader that got several packets at once waits this long before it reads again, so that a busy server
	// wakes once for about twenty packets and not for each. At 8,000 exchanges a second an exchange takes
	// 88 µs of CPU time with this wait and 108 µs without. Clients wait for seconds.
	gatherFor = time.Millisecond
	// Room for some 5000 packets. With the kernel's default, 208 KiB, a rack of 1000 machines that is
	// switched on at once lost 1959 DISCOVERs, and the last machine had its offer after 28 s or none at all;
	// with this it loses none (the row boot-storm of bench).
	receiveBuffer = 4 << 20
	// iPXE waits two seconds for our offer after the DHCP server's, and then boots without it.
	decideTimeout = time.Second
	// Pause after a read error that does not end the server, for example while a link goes away.
	readPause = 100 * time.Millisecond
)

// A Decider says what a client should boot. ok is false when the machine should be left
// alone; the server then stays silent and the firmware goes on to its next boot device.
// It has about a second and is called from several goroutines.
type Decider func(ctx context.Context, c Client) (b Boot, ok bool)

// Config is what a Server needs. Interfaces and Decide are required.
type Config struct {
	Interfaces []Interface
	Decide     Decider
	Leases     *LeaseConfig    // for server mode; nil for proxy mode
	Program    func(Arch) bool // whether an architecture has a boot program; nil: all that have names here
	// Observe is called by one goroutine, for each packet unless it is too slow. May be nil.
	Observe func(Seen)
	Log     *slog.Logger // nothing is logged when nil
	Now     func() time.Time
}

// A Server answers network boot clients in proxy mode, or all DHCP clients in server mode.
type Server struct {
	cfg    Config
	links  *links
	memory memory
	socks  []socket
	leases *leaseServer // nil in proxy mode
	seen   *observe.Queue[Seen]
}

type socket struct {
	port int
	udp  *net.UDPConn
	conn *ipv4.PacketConn // the same socket as udp
	turn *turn
}

// A turn lets one reader wait at a time. Without it all of them would wake for each packet.
type turn struct {
	sync.Mutex
	busy bool // the last reader found several packets, and took all of them
}

// Listen checks the interfaces and opens the sockets, so that a missing interface and a
// port that is taken are errors here.
func Listen(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Seen) {}
	}
	if cfg.Program == nil {
		cfg.Program = func(a Arch) bool { _, ok := archs[a]; return ok }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := checkInterfaces(cfg.Interfaces); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:   cfg,
		links: newLinks(cfg.Interfaces, cfg.Now),
		seen:  observe.New(cfg.Log, "DHCP packets", cfg.Observe),
	}
	// Port 4011 comes first and is not shared: two proxies on one host would answer everything twice, so
	// opening it must fail for the second one. Port 67 is shared: a DHCP server on the same host that shares
	// it, too, still receives broadcasts.
	for _, l := range []struct {
		port   int
		shared bool
	}{{pxePort, false}, {dhcpPort, true}} {
		udp, conn, err := listen(l.port, l.shared)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.socks = append(s.socks, socket{l.port, udp, conn, new(turn)})
	}
	if cfg.Leases != nil {
		var err error
		if s.leases, err = newLeaseServer(*cfg.Leases, s.links, cfg.Log, cfg.Now); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// listen opens a wildcard socket that tells the interface and the destination of each packet. It does not set
// SO_REUSEPORT, which would let any other program of this user open the port without an error and get some of
// our packets.
func listen(port int, shared bool) (*net.UDPConn, *ipv4.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var opt error
		err := raw.Control(func(fd uintptr) {
			if shared {
				opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
			opt = errors.Join(opt, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
			// Without CAP_NET_ADMIN, net.core.rmem_max bounds the buffer. A smaller buffer is no error.
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		})
		return errors.Join(err, opt)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, nil, fmt.Errorf(
			"dhcp: another program listens on UDP port %d (find it with `ss -ulpn 'sport = :%d'`; "+
				"a second pxectl or a PXE server on this host?): %w",
			port, port, err)
	case errors.Is(err, syscall.EACCES):
		return nil, nil, fmt.Errorf("dhcp: UDP port %d needs root or CAP_NET_BIND_SERVICE: %w", port, err)
	case err != nil:
		return nil, nil, fmt.Errorf("dhcp: %w", err)
	}
	p4 := ipv4.NewPacketConn(conn)
	if err := p4.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("dhcp: UDP port %d: ask for the interface of packets: %w", port, err)
	}
	return conn.(*net.UDPConn), p4, nil
}

// Readdress tells the server its new address on an interface. Answers carry it from now on.
func (s *Server) Readdress(iface string, a netip.Addr) {
	s.links.readdress(iface, a)
	if s.leases != nil {
		s.leases.readdress(iface, a)
	}
}

// Close closes a server that will not run.
func (s *Server) Close() error {
	errs := []error{s.hangUp()}
	if s.leases != nil {
		errs = append(errs, s.leases.close())
	}
	s.seen.Close()
	return errors.Join(errs...)
}

func (s *Server) hangUp() error {
	var errs []error
	for _, k := range s.socks {
		errs = append(errs, k.conn.Close())
	}
	return errors.Join(errs...)
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, bug.Recovering(s.cfg.Log, "dhcp: stop", func() { _ = s.hangUp() }))
	defer stop()
	var all sync.WaitGroup
	for _, k := range s.socks {
		for range readers {
			all.Go(func() {
				defer bug.Recover(s.cfg.Log, "dhcp: read packets")
				s.serve(ctx, k)
			})
		}
	}
	all.Wait()
	defer s.seen.Close()
	if s.leases != nil {
		return s.leases.close()
	}
	return nil
}

func (s *Server) serve(ctx context.Context, k socket) {
	batch := make([]ipv4.Message, batchSize)
	for i := range batch {
		batch[i] = ipv4.Message{
			Buffers: [][]byte{make([]byte, 2048)},
			OOB:     ipv4.NewControlMessage(ipv4.FlagDst | ipv4.FlagInterface),
		}
	}
	var cm ipv4.ControlMessage
	for ctx.Err() == nil {
		n, err := k.read(batch)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.cfg.Log.Warn("dhcp: read", "port", k.port, "err", err)
			_ = sleep.For(ctx, readPause)
			continue
		}
		for _, m := range batch[:n] {
			if from, ok := m.Addr.(*net.UDPAddr); ok && cm.Parse(m.OOB[:m.NN]) == nil {
				s.packet(ctx, k, m.Buffers[0][:m.N], origin{
					from: from.AddrPort(), to: addr(cm.Dst), ifindex: cm.IfIndex,
				})
			}
		}
	}
}

// read waits for packets and takes what is there.
func (k socket) read(batch []ipv4.Message) (int, error) {
	k.turn.Lock()
	defer k.turn.Unlock()
	if k.turn.busy {
		time.Sleep(gatherFor)
	}
	n, err := k.conn.ReadBatch(batch, 0)
	k.turn.busy = n > 1 && n < len(batch)
	return n, err
}

// packet handles one packet. Whatever it contains, the server goes on.
func (s *Server) packet(ctx context.Context, k socket, raw []byte, in origin) {
	defer bug.Recover(s.cfg.Log, "dhcp: handle a packet", func() []any {
		return []any{"port", k.port, "from", in.from, "packet", hex.EncodeToString(raw)}
	})
	p, odd, err := parse(raw)
	if err != nil {
		s.cfg.Log.Debug("dhcp: not a DHCP packet", "port", k.port, "from", in.from, "err", err)
		return
	}
	iface, ok := s.links.find(in.ifindex)
	c := s.recall(p, classify(p, k.port, s.cfg.Program))
	c.Interface, c.Server, c.Odd = iface.Name, iface.Addr, odd
	if !ok {
		s.report(c, nil, "", Reason{Code: CodeInterface, Name: iface.Name})
		return
	}
	if s.leases != nil && k.port == dhcpPort {
		s.leases.serve(ctx, p, c, in, s.ask, func(r *dhcpv4.DHCPv4, why Reason) {
			if r == nil {
				s.report(c, nil, "", why)
				return
			}
			if why.Code == "" && c.NoProgram {
				why = noProgram(c)
			}
			s.deliver(k, r, c, leaseDestination(c, p, r, in.from), in.ifindex, why)
		})
		return
	}
	if why := unwanted(p, c); why.Code != "" {
		s.report(c, nil, "", why)
		return
	}
	r, why := s.decide(ctx, p, c)
	if r == nil {
		s.report(c, nil, "", why)
		return
	}
	s.deliver(k, r, c, destination(c, in.from), in.ifindex, Reason{})
}

// deliver sends an answer and reports it; why is the reason when it is a NAK.
func (s *Server) deliver(k socket, r *dhcpv4.DHCPv4, c Client, dst netip.AddrPort, ifindex int, why Reason) {
	switch err := send(k.udp, r, c, dst, ifindex); {
	case errors.Is(err, net.ErrClosed):
		return // we are stopping; the client asks again
	case err != nil:
		s.cfg.Log.Error("dhcp: send", "mac", c.MAC.String(), "interface", c.Interface, "to", dst, "err", err)
		s.report(c, nil, "", Reason{Code: CodeAnswerFailed, Name: dst.String(), Err: err})
		return
	}
	s.report(c, r, r.BootFileNameOption(), why)
}

// recall keeps the architecture of each DISCOVER, for a REQUEST that leaves it out or has 0 in its place.
func (s *Server) recall(p *dhcpv4.DHCPv4, c Client) Client {
	if c.MAC == nil || c.Class == ClassOther && c.HasArch {
		return c
	}
	switch {
	case c.Type == dhcpv4.MessageTypeDiscover && c.Class != ClassOther:
		s.memory.put(string(c.MAC), c.Arch, s.cfg.Now())
	case c.Type == dhcpv4.MessageTypeRequest:
		if a, ok := s.memory.get(string(c.MAC), s.cfg.Now()); ok {
			return remembered(c, a, p, s.cfg.Program)
		}
	}
	return c
}

// decide asks the Decider and builds the answer; a nil answer comes with the reason.
func (s *Server) decide(ctx context.Context, p *dhcpv4.DHCPv4, c Client) (r *dhcpv4.DHCPv4, why Reason) {
	boot, ok := s.ask(ctx, c)
	if !ok {
		return nil, Reason{Code: CodeLeftAlone}
	}
	r, err := answer(p, c, boot)
	if err != nil {
		s.cfg.Log.Error("dhcp: no answer possible", "mac", c.MAC.String(), "class", c.Class, "arch", c.Arch,
			"err", err)
		return nil, because(err)
	}
	return r, Reason{}
}

// ask asks the Decider and gives it decideTimeout.
func (s *Server) ask(ctx context.Context, c Client) (Boot, bool) {
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	return s.cfg.Decide(ctx, c)
}

// send sends an answer from the port that the request came in by, with our address there as its source. A
// broadcast leaves by the interface that the request came in by.
func send(conn *net.UDPConn, r *dhcpv4.DHCPv4, c Client, dst netip.AddrPort, ifindex int) error {
	cm := &ipv4.ControlMessage{Src: c.Server.AsSlice(), IfIndex: ifindex}
	if dst.Addr() != broadcast {
		cm.IfIndex = 0 // the routing table knows the way to a relay, or to a client with an address
	}
	// ipv4.PacketConn.WriteTo is slower: on top of the kernel's time for the packet it took four tenths of
	// that.
	_, _, err := conn.WriteMsgUDPAddrPort(encode(r, c), cm.Marshal(), dst)
	return err
}

// report logs one line about a packet and tells the observer.
func (s *Server) report(c Client, r *dhcpv4.DHCPv4, boot string, why Reason) {
	seen := Seen{Time: s.cfg.Now(), Client: c, Boot: boot, Reason: why}
	level := slog.LevelDebug
	if r != nil {
		seen.Answer, seen.Lease = r.MessageType(), addr(r.YourIPAddr)
		// Of an ordinary client's answers only the ACK.
		if c.Class != ClassOther || seen.Answer != dhcpv4.MessageTypeOffer {
			level = slog.LevelInfo
		}
	}
	if s.cfg.Log.Enabled(context.Background(), level) {
		s.cfg.Log.Log(context.Background(), level, "dhcp: "+seen.String(),
			"mac", c.MAC.String(), "uuid", c.UUID, "interface", c.Interface, "type", c.Type.String(),
			"class", string(c.Class),
			"arch", uint16(c.Arch), "vendor", c.Vendor, "user_class", c.UserClass, "xid", c.XID.String(),
			"relay", c.Relay)
	}
	s.seen.Put(seen)
}
