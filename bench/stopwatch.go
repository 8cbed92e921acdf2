package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A stopwatch measures the appliance's time for a boot script on the wire: from the packet with the request
// to the first packet of the answer, by the kernel's timestamps. The client's own measurement would include
// its wait for a core that it shares with 999 others, which no machine does.
type stopwatch struct {
	fd int

	mu      sync.Mutex
	asked   map[string]time.Time // by the client's address and port
	answers []time.Duration
}

// requests passes the first 128 bytes of TCP in IPv4 without options whose data begins with "GET " or "HTTP".
var requests = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: etherIPv4, Jf: 10},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 9}, // protocol
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 8},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: tcpAt + 12}, // data offset, in words, in the upper half
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
	{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 2},
	{Code: unix.BPF_MISC | unix.BPF_TAX},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND, K: tcpAt},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 'G'<<24 | 'E'<<16 | 'T'<<8 | ' ', Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 'H'<<24 | 'T'<<16 | 'T'<<8 | 'P', Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 128},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

const tcpAt = 14 + 20

func openStopwatch(name string) (*stopwatch, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	all := uint16(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) // it receives nothing until it is bound, with its filter
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(requests)), Filter: &requests[0],
		}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nic.Index}),
	)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return &stopwatch{fd: fd, asked: map[string]time.Time{}}, nil
}

// watch runs until the process ends.
func (s *stopwatch) watch() {
	buf, control := make([]byte, 256), make([]byte, 256)
	for {
		n, c, _, _, err := unix.Recvmsg(s.fd, buf, control, 0)
		if err != nil || n < tcpAt+20 {
			continue
		}
		at, ok := timestamp(control[:c])
		if !ok {
			continue
		}
		ip, tcp := buf[14:n], buf[tcpAt:n]
		data := tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
		s.mu.Lock()
		if bytes.HasPrefix(data, []byte("GET /boot.ipxe")) {
			s.asked[string(ip[12:16])+string(tcp[:2])] = at
		} else if client := string(ip[16:20]) + string(tcp[2:4]); bytes.HasPrefix(data, []byte("HTTP")) {
			if asked, ok := s.asked[client]; ok {
				s.answers = append(s.answers, at.Sub(asked))
				delete(s.asked, client)
			}
		}
		s.mu.Unlock()
	}
}

// timestamp is the kernel's, from struct timespec.
func timestamp(control []byte) (time.Time, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)),
				int64(binary.NativeEndian.Uint64(m.Data[8:]))), true
		}
	}
	return time.Time{}, false
}
