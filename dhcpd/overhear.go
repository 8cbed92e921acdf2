package dhcpd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
)

// Overheard is an answer of another DHCP server to a client on our wire. Only broadcasts are heard: a switch
// does not pass us an answer to the client's own hardware address, and the listener does not use promiscuous
// mode. Most boot clients ask for broadcasts.
type Overheard struct {
	Time      time.Time
	Interface string
	Server    netip.Addr // option 54, else the packet's source
	Source    netip.Addr
	From      net.HardwareAddr // the sender of the frame
	Client    net.HardwareAddr
	Type      dhcpv4.MessageType // OFFER, ACK or NAK
	Addr      netip.Addr         // the address it hands out; none from a proxy
	File      string             // boot file or URL: option 67, else BOOTP's file field
	Next      netip.Addr         // siaddr: where the boot file lies
	TFTP      string             // option 66: the same as a name
	Class     string             // option 60: "PXEClient", "HTTPClient" or nothing
	XID       dhcpv4.TransactionID

	// Impostor is set by who knows our addresses: Server is one of them. What this host sends is not heard, so
	// it is another host that has the address, or says so.
	Impostor bool
}

// Boots says whether the answer tells the client what to boot: a file, or a PXE menu.
func (o Overheard) Boots() bool {
	return o.File != "" || bootFirmware(o.Class)
}

// A Listener overhears the answers of other DHCP servers on some interfaces.
type Listener struct {
	heard func(Overheard)
	log   *slog.Logger
	first map[string]*packet.Conn // by interface
}

// Overhear opens the sockets, one per interface. heard must not block. Packets that this host sends itself
// are not heard, so a DHCP server beside us on the same host is not either.
func Overhear(interfaces []string, heard func(Overheard), log *slog.Logger) (*Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Listener{heard: heard, log: log, first: map[string]*packet.Conn{}}
	for _, name := range interfaces {
		f, err := openTap(name)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.first[name] = f
	}
	return l, nil
}

// Close closes the sockets of a listener that will not run.
func (l *Listener) Close() error {
	var errs []error
	for _, f := range l.first {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Run listens until the context ends.
func (l *Listener) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for name, f := range l.first {
		all.Go(func() {
			defer bug.Recover(l.log, "dhcp: listen for other DHCP servers")
			l.follow(ctx, name, f)
		})
	}
	all.Wait()
	return nil
}

// tapAgain is the pause between attempts to listen on an interface that went away.
const tapAgain = 2 * time.Second

// follow listens on an interface, also after it went down or was made anew.
func (l *Listener) follow(ctx context.Context, name string, f *packet.Conn) {
	told := false
	for {
		if f != nil {
			began := time.Now()
			err := l.listen(ctx, name, f)
			if ctx.Err() != nil {
				return
			}
			// On an interface that is still down, listen fails at once each time. One warning is enough.
			if !told || time.Since(began) > tapAgain {
				l.log.Warn("dhcp: listening for other DHCP servers was interrupted", "interface", name,
					"err", err)
			}
			told = true
		}
		if sleep.For(ctx, tapAgain) != nil {
			return
		}
		f, _ = openTap(name) // package appliance/interfaces reports an interface that is gone
	}
}

func (l *Listener) listen(ctx context.Context, name string, f *packet.Conn) error {
	stop := context.AfterFunc(ctx,
		bug.Recovering(l.log, "dhcp: stop to listen for other DHCP servers", func() { _ = f.Close() }))
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	buf := make([]byte, 2048)
	for {
		n, from, err := f.ReadFrom(buf)
		if err != nil {
			return err
		}
		l.packet(name, sender(from), buf[:n])
	}
}

// sender is the hardware address of who sent a frame.
func sender(from net.Addr) net.HardwareAddr {
	if a, ok := from.(*packet.Addr); ok {
		return a.HardwareAddr
	}
	return nil
}

func (l *Listener) packet(name string, from net.HardwareAddr, raw []byte) {
	defer bug.Recover(l.log, "dhcp: overhear a packet", func() []any {
		return []any{"interface", name, "packet", hex.EncodeToString(raw)}
	})
	o, err := parseOverheard(raw)
	if err != nil {
		l.log.Debug("dhcp: overheard something that is no answer", "interface", name, "err", err)
		return
	}
	o.Time, o.Interface, o.From = time.Now(), name, from
	l.heard(o)
}

// openTap opens a packet socket that is given whole IP packets to UDP port 68, and nothing else.
func openTap(name string) (*packet.Conn, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("dhcp: listen for other DHCP servers on %s: %w", name, err)
	}
	filter, err := bpf.Assemble(toClients)
	if err != nil {
		return nil, fmt.Errorf("dhcp: packet filter: %w", err)
	}
	tap, err := packet.Listen(nic, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EPERM) {
			hint = " (it needs CAP_NET_RAW)"
		}
		return nil, fmt.Errorf("dhcp: listen for other DHCP servers on %s%s: %w", name, hint, err)
	}
	return tap, nil
}

// toClients passes IPv4 packets to UDP port 68 that others sent. Offsets count from the IP header
// (RFC 791 section 3.1): protocol at 9, flags and fragment offset at 6, and behind the header, whose length
// is in the first byte, the UDP ports.
var toClients = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

// parseOverheard reads an IP packet with a DHCP server's answer in it.
func parseOverheard(raw []byte) (Overheard, error) {
	payload, src, err := udpPayload(raw)
	if err != nil {
		return Overheard{}, err
	}
	p, _, err := parse(payload)
	if err != nil {
		return Overheard{}, err
	}
	switch t := p.MessageType(); {
	case p.OpCode != dhcpv4.OpcodeBootReply:
		return Overheard{}, errors.New("not a reply")
	case t != dhcpv4.MessageTypeOffer && t != dhcpv4.MessageTypeAck && t != dhcpv4.MessageTypeNak:
		return Overheard{}, fmt.Errorf("a reply of type %v", t)
	}
	o := Overheard{
		Server: addr(p.ServerIdentifier()), Client: macOf(p), Type: p.MessageType(), Addr: addr(p.YourIPAddr),
		File: p.BootFileNameOption(), Next: addr(p.ServerIPAddr), TFTP: p.TFTPServerName(),
		Class: p.ClassIdentifier(), XID: p.TransactionID, Source: src,
	}
	if !o.Server.IsValid() {
		o.Server = src
	}
	if o.File == "" {
		o.File = p.BootFileName
	}
	return o, nil
}

// String is one line. Free text of the packet is quoted.
func (o Overheard) String() string {
	s := fmt.Sprintf("%v from another server, %v", o.Type, o.Server)
	if o.Impostor {
		s = fmt.Sprintf("%v from somebody with our address %v (MAC %v)", o.Type, o.Server, o.From)
	}
	if o.Addr.IsValid() {
		s += fmt.Sprintf(": the address %v", o.Addr)
	}
	switch {
	case o.File != "":
		file, _, _ := strings.Cut(o.File, "?")
		s += fmt.Sprintf(", and to boot %q", file)
		if o.Next.IsValid() && o.Next != o.Server {
			s += fmt.Sprintf(" from %v", o.Next)
		}
	case o.Boots():
		s += fmt.Sprintf(", and as %q", o.Class)
	}
	return s
}

// udpPayload is what an unfragmented IPv4 packet carries to a DHCP client, and who sent it.
func udpPayload(raw []byte) (payload []byte, src netip.Addr, err error) {
	const udpHeader = 8
	if len(raw) < 20 || raw[0]>>4 != 4 {
		return nil, src, fmt.Errorf("%d bytes that are no IPv4 packet", len(raw))
	}
	header, total := int(raw[0]&15)*4, int(binary.BigEndian.Uint16(raw[2:]))
	if header < 20 || total > len(raw) || total < header+udpHeader {
		return nil, src, fmt.Errorf("IPv4 packet of %d bytes: says header %d, total %d", len(raw), header,
			total)
	}
	udp := raw[header:total] // Ethernet pads short packets
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if raw[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(udp[2:]) != clientPort || n < udpHeader ||
		n > len(udp) {
		return nil, src, errors.New("not UDP to a DHCP client")
	}
	return udp[udpHeader:n], netip.AddrFrom4([4]byte(raw[12:16])), nil
}
