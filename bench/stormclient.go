package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/ipxe"
)

const (
	stormCommand  = "storm-clients" // as the first argument, it makes this program the clients
	stormNet      = "10.91.0.0/16"
	stormDeadline = 2 * time.Minute
)

// EDK2 asks again after 4, 8, 16 and 32 seconds (PxeBc, and its TFTP four times after 5 s).
var dhcpPauses = []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}

const (
	tftpPause = 5 * time.Second
	tftpTries = 5
)

// A machine is a client.
type machine struct {
	mac    net.HardwareAddr
	addr   netip.Addr
	offers chan *dhcpv4.DHCPv4
	wire   *wire
	again  *atomic.Int64
	port   int // of its last TFTP transfer
}

// stormMain boots all machines at once and prints the figures.
func stormMain() error {
	ctx, cancel := context.WithTimeout(context.Background(), stormDeadline)
	defer cancel()
	var again atomic.Int64
	w, err := openWire("eth0")
	if err != nil {
		return err
	}
	machines := make([]*machine, stormClients)
	for i := range machines {
		m := &machine{
			mac:    net.HardwareAddr{0x52, 0x54, 0x00, 0x91, byte(i >> 8), byte(i)},
			addr:   netip.AddrFrom4([4]byte{10, 91, byte(1 + i/250), byte(1 + i%250)}),
			offers: make(chan *dhcpv4.DHCPv4, 4), wire: w, again: &again,
			port: 10000 + rand.IntN(50000),
		}
		machines[i], w.byMAC[m.mac.String()] = m, m.offers
	}
	go w.receive()
	watch, err := openStopwatch("eth0")
	if err != nil {
		return err
	}
	go watch.watch()

	var f stormFigures
	var mu sync.Mutex
	var all sync.WaitGroup
	start := time.Now()
	for _, m := range machines {
		all.Go(func() {
			took, err := m.boot(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.Failed = append(f.Failed, fmt.Sprintf("%v: %v", m.mac, err))
			}
			f.Waited = append(f.Waited, took)
		})
	}
	all.Wait()
	f.Took, f.Again = time.Since(start), int(again.Load())
	watch.mu.Lock()
	defer watch.mu.Unlock()
	f.Scripts = watch.answers
	return json.NewEncoder(os.Stdout).Encode(f)
}

func percentile(v []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	return s[(len(s)*p+99)/100-1]
}

// boot does the whole chain.
func (m *machine) boot(ctx context.Context) (script time.Duration, err error) {
	offer, err := m.discover(ctx)
	if err != nil {
		return 0, fmt.Errorf("DISCOVER: %w", err)
	}
	server, ok := netip.AddrFromSlice(offer.ServerIdentifier().To4())
	if !ok {
		return 0, errors.New("an offer without option 54")
	}
	file, err := m.request(ctx, server)
	if err != nil {
		return 0, fmt.Errorf("REQUEST at port 4011: %w", err)
	}
	want, ok := ipxe.NBP(file)
	if !ok {
		return 0, fmt.Errorf("boot file %q", file)
	}
	if _, err := m.load(ctx, server, file, true); err != nil {
		return 0, fmt.Errorf("the size of %s: %w", file, err)
	}
	got, err := m.load(ctx, server, file, false)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		return 0, fmt.Errorf("%s: %d of %d bytes, %w", file, len(got), len(want), err)
	}
	if _, err := m.load(ctx, server, "autoexec.ipxe", false); err != nil {
		return 0, fmt.Errorf("autoexec.ipxe: %w", err)
	}
	return m.ipxe(ctx, server)
}

// discover broadcasts until there is an offer.
func (m *machine) discover(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	p, err := dhcpv4.NewDiscovery(m.mac, dhcpv4.WithBroadcast(true), pxeOptions)
	if err != nil {
		return nil, err
	}
	for _, pause := range dhcpPauses {
		if err := m.wire.broadcast(m.mac, p.ToBytes()); err != nil {
			return nil, err
		}
		select {
		case offer := <-m.offers:
			return offer, nil
		case <-time.After(pause):
			m.again.Add(1)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, errors.New("no offer")
}

func pxeOptions(p *dhcpv4.DHCPv4) {
	p.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016"))
	p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
	p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16}))
}

// request asks the proxy's second port, as EDK2 does, and returns the boot file's name.
func (m *machine) request(ctx context.Context, server netip.Addr) (string, error) {
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(m.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(m.addr.AsSlice()), pxeOptions)
	if err != nil {
		return "", err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: m.addr.AsSlice(), Port: 4011})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for _, pause := range dhcpPauses {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if _, err := conn.WriteToUDPAddrPort(p.ToBytes(), netip.AddrPortFrom(server, 4011)); err != nil {
			return "", err
		}
		_ = conn.SetReadDeadline(time.Now().Add(pause))
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.again.Add(1)
			continue
		} else if err != nil {
			return "", err
		}
		ack, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.TransactionID != p.TransactionID {
			return "", fmt.Errorf("%v, want the ACK of %v: %w", ack, p.TransactionID, err)
		}
		return string(bytes.TrimRight([]byte(ack.BootFileName), "\x00")), nil
	}
	return "", errors.New("no ACK")
}

// load reads a file in lock-step (RFC 1350), or asks for its size and hangs up.
func (m *machine) load(ctx context.Context, server netip.Addr, name string, sizeOnly bool) ([]byte, error) {
	// Each transfer uses the port after the last one's, as in EDK2 (Udp4Dxe): a late packet of the size's
	// transfer is not taken for one of the file's.
	m.port++
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: m.addr.AsSlice(), Port: m.port})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	packet := []byte("\x00\x01" + name + "\x00octet\x00tsize\x000\x00")
	if !sizeOnly {
		packet = append(packet, "blksize\x001468\x00"...)
	}
	var file []byte
	to := netip.AddrPortFrom(server, 69)
	buf := make([]byte, 1600)
	for block, tries := uint16(0), 0; ; {
		if tries++; tries > tftpTries || ctx.Err() != nil {
			return file, fmt.Errorf("no answer to block %d", block)
		}
		if tries > 1 {
			m.again.Add(1)
		}
		if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
			return file, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(tftpPause))
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		for err == nil && n >= 4 && sentTwice(buf, block) {
			n, from, err = conn.ReadFromUDPAddrPort(buf)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return file, err
		case n < 4 || buf[1] == 5:
			return file, fmt.Errorf("refused: %q", buf[min(4, n):n])
		case buf[1] == 6 && sizeOnly:
			_, err := conn.WriteToUDPAddrPort([]byte("\x00\x05\x00\x08User aborted the transfer\x00"), from)
			return nil, err
		case buf[1] == 3:
			file = append(file, buf[4:n]...)
		}
		to, tries = from, 0
		packet = []byte{0, 4, byte(block >> 8), byte(block)}
		if buf[1] == 3 && n-4 < 1468 {
			_, err := conn.WriteToUDPAddrPort(packet, to)
			return file, err
		}
		block++
	}
}

// sentTwice says that a packet is an earlier one: the server did not see our acknowledgement in time.
func sentTwice(packet []byte, block uint16) bool {
	switch packet[1] {
	case 3:
		return uint16(packet[2])<<8|uint16(packet[3]) != block
	case 6:
		return block != 0
	}
	return false
}

var reURL = regexp.MustCompile(`http://\S+/ramdisk/\S+/(vmlinuz|initrd)`)

// ipxe fetches the script, and the files that it names, on one connection.
func (m *machine) ipxe(ctx context.Context, server netip.Addr) (script time.Duration, err error) {
	start := time.Now()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: m.addr.AsSlice()}}
	conn, err := d.DialContext(ctx, "tcp4", fmt.Sprintf("%v:%d", server, httpPort))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	_ = conn.SetDeadline(end)
	r := bufio.NewReader(conn)
	get := func(url string) ([]byte, error) {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			return nil, err
		}
		if err := req.Write(conn); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%s: %q", resp.Status, body)
		}
		return body, err
	}
	text, err := get(fmt.Sprintf("http://%v:%d/boot.ipxe?mac=%s&arch=x86_64&platform=efi", server, httpPort,
		bytes.ReplaceAll([]byte(m.mac.String()), []byte(":"), []byte("-"))))
	script = time.Since(start)
	if err != nil {
		return script, fmt.Errorf("boot script: %w", err)
	}
	urls := reURL.FindAllString(string(text), -1)
	if len(urls) != 2 {
		return script, fmt.Errorf("the boot script names %q, want a kernel and a ramdisk", urls)
	}
	for _, url := range urls {
		if body, err := get(url); err != nil || len(body) != stormKernel && len(body) != stormInitrd {
			return script, fmt.Errorf("%s: %d bytes, %w", url, len(body), err)
		}
	}
	return script, nil
}
