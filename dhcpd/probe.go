package dhcpd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/bug"
)

const (
	probeFor   = 300 * time.Millisecond // RFC 2131 sets no time; a host on the wire answers in a few ms
	maxProbes  = 64                     // at once
	etherIPv4  = 0x0800
	arpRequest = 1
)

// A prober asks by ARP whether anybody uses an address, as in RFC 5227 section 2.1.1: its probes have no
// sender address, so that they change nobody's ARP cache.
type prober struct {
	file *os.File
	raw  syscall.RawConn
	log  *slog.Logger

	mu      sync.Mutex
	clients map[string]bool // whose address is being probed
	asked   map[arpQuestion]*arpAnswer
}

// An arpQuestion is an address on the wire of one interface. Hosts on other wires may have the same address.
type arpQuestion struct {
	ifindex int
	addr    netip.Addr
}

// An arpAnswer says who has the address. All that ask the same question at once share one.
type arpAnswer struct {
	askers int
	heard  chan struct{} // closed when mac is set
	mac    net.HardwareAddr
}

// newProber opens a packet socket for ARP and starts to listen.
func newProber(log *slog.Logger) (*prober, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		int(networkOrder(unix.ETH_P_ARP)))
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("dhcp: dhcp.server.probe needs root or CAP_NET_RAW: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("dhcp: socket for ARP: %w", err)
	}
	p := &prober{
		file:    os.NewFile(uintptr(fd), "arp"),
		log:     log,
		clients: map[string]bool{},
		asked:   map[arpQuestion]*arpAnswer{},
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("dhcp: socket for ARP: %w", err)
	}
	go p.listen()
	return p, nil
}

func (p *prober) close() { _ = p.file.Close() }

// start runs f in a goroutine, unless an address of this client is being probed already, or maxProbes other
// clients' are; busy says that it is the latter.
func (p *prober) start(client string, f func()) (started, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.clients[client]:
		return false, false
	case len(p.clients) >= maxProbes:
		return false, true
	}
	p.clients[client] = true
	go func() {
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.clients, client)
		}()
		defer bug.Recover(p.log, "dhcp: probe an address")
		f()
	}()
	return true, false
}

// used says whether somebody on that interface's wire has the address, and who. It waits up to probeFor.
func (p *prober) used(ifindex int, a netip.Addr) (net.HardwareAddr, bool) {
	nic, err := net.InterfaceByIndex(ifindex)
	if err != nil || len(nic.HardwareAddr) != 6 {
		return nil, false
	}
	q := arpQuestion{ifindex, a}
	answer := p.ask(q)
	defer p.forget(q)
	// A probe that cannot be sent finds nobody: the client still gets its answer.
	_ = p.raw.Control(func(fd uintptr) {
		to := &unix.SockaddrLinklayer{
			Protocol: networkOrder(unix.ETH_P_ARP),
			Ifindex:  ifindex,
			Halen:    6,
			Addr:     [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}
		_ = unix.Sendto(int(fd), arpProbe(nic.HardwareAddr, a), 0, to)
	})
	select {
	case <-answer.heard:
		return answer.mac, true
	case <-time.After(probeFor):
		return nil, false
	}
}

// ask registers a question. From now on listen answers it when it reads a packet of the address's user.
func (p *prober) ask(q arpQuestion) *arpAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.asked[q]
	if a == nil {
		a = &arpAnswer{heard: make(chan struct{})}
		p.asked[q] = a
	}
	a.askers++
	return a
}

// forget ends one ask; it is called once for each.
func (p *prober) forget(q arpQuestion) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.asked[q]; a.askers > 1 {
		a.askers--
	} else {
		delete(p.asked, q)
	}
}

// heard tells those who ask who has the address.
func (p *prober) heard(q arpQuestion, mac net.HardwareAddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.asked[q]; a != nil && a.mac == nil {
		a.mac = mac
		close(a.heard)
	}
}

// listen reads ARP packets and passes their senders to heard.
func (p *prober) listen() {
	defer bug.Recover(p.log, "dhcp: listen for ARP")
	buf := make([]byte, 128)
	for {
		n, from, err := 0, unix.Sockaddr(nil), error(nil)
		if p.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(err, unix.EAGAIN)
		}) != nil {
			return // closed
		}
		if err != nil {
			time.Sleep(readPause) // a link that went down
			continue
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if mac, a, arp := parseARP(buf[:n]); ok && arp {
			p.heard(arpQuestion{link.Ifindex, a}, mac)
		}
	}
}

// arpProbe builds an ARP probe for an address: RFC 826, RFC 5227 section 1.1.
func arpProbe(from net.HardwareAddr, a netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, etherIPv4)
	b = append(b, 6, 4, 0, arpRequest)
	b = append(append(b, from...), 0, 0, 0, 0)
	return append(append(b, 0, 0, 0, 0, 0, 0), a.AsSlice()...)
}

// parseARP reads the sender of an ARP packet for IPv4 on Ethernet.
func parseARP(b []byte) (mac net.HardwareAddr, a netip.Addr, ok bool) {
	if len(b) < 28 || [6]byte(b[:6]) != [6]byte{0, 1, etherIPv4 >> 8, etherIPv4 & 0xff, 6, 4} {
		return nil, netip.Addr{}, false
	}
	a = netip.AddrFrom4([4]byte(b[14:18]))
	return append(net.HardwareAddr(nil), b[8:14]...), a, !a.IsUnspecified()
}

// networkOrder is a number in network byte order.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
