package tftpd

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/bug"
)

// A request costs a hundredth of a millisecond, so a client that sends as fast as it can would leave less
// room for others. A request that the kernel drops costs nearly nothing.

const (
	// A machine sends two to five requests while it boots, so a router that hides a hundred machines behind
	// its address is far below this, too. The window is ten seconds, since a slow host that is flooded reads
	// only a few hundred requests in one.
	floodRequests = 20_000 // from one address
	floodWindow   = 10 * time.Second
	shutFor       = time.Minute
	// One in so many requests from a flooding address is still answered: somebody may forge the address of a
	// machine.
	heardOneIn = 16
	maxShut    = 32
	maxCounted = 4096 // addresses: a flood of made-up ones starts the count anew
)

// A floodFilter makes the kernel drop packets that are not requests, and most requests of clients that flood.
type floodFilter struct {
	conn syscall.RawConn
	log  *slog.Logger
	most int // requests within a window from one address

	mu     sync.Mutex
	began  time.Time // of the window
	counts map[netip.Addr]int
	shut   []netip.Addr // the one that is shut out the longest first
}

func newFloodFilter(conn syscall.RawConn, log *slog.Logger) (*floodFilter, error) {
	s := &floodFilter{conn: conn, log: log, most: floodRequests, counts: map[netip.Addr]int{}}
	return s, s.attachLocked()
}

// admits counts a request; false means that the client is shut out from now on.
func (s *floodFilter) admits(client netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.shut, client) {
		return true // the kernel let it through, or it was in the queue before the filter
	}
	if now.Sub(s.began) >= floodWindow || len(s.counts) >= maxCounted {
		s.began = now
		clear(s.counts)
	}
	if s.counts[client]++; s.counts[client] <= s.most {
		return true
	}
	if len(s.shut) == maxShut {
		s.shut = s.shut[1:]
	}
	s.shut = append(s.shut, client)
	s.log.Warn("tftp: a client floods us with requests; most of them are dropped for a while",
		"client", client, "requests", s.most, "within", floodWindow, "for", shutFor)
	s.reattachLocked()
	s.empty()
	time.AfterFunc(shutFor, bug.Recovering(s.log, "tftp: hear a client again", func() { s.readmit(client) }))
	return false
}

func (s *floodFilter) readmit(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := slices.Index(s.shut, client); at >= 0 {
		s.shut = slices.Delete(s.shut, at, at+1)
		delete(s.counts, client)
		s.reattachLocked()
	}
}

// empty drops the socket's queue. Nearly all of it is the flood, and a slow host would work on it for
// seconds. Firmware asks again.
func (s *floodFilter) empty() {
	_ = s.conn.Control(func(fd uintptr) {
		buf := make([]byte, 1)
		for range receiveBuffer / 512 { // each request takes more than that of the buffer
			if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
				return
			}
		}
	})
}

func (s *floodFilter) reattachLocked() {
	if err := s.attachLocked(); err != nil {
		s.log.Debug("tftp: packet filter", "err", err) // the socket is closed
	}
}

// attachLocked gives the socket a filter for the clients that are shut out.
func (s *floodFilter) attachLocked() error {
	ops, err := bpf.Assemble(filter(s.shut))
	if err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	code := make([]unix.SockFilter, len(ops))
	for i, op := range ops {
		code[i] = unix.SockFilter{Code: op.Op, Jt: op.Jt, Jf: op.Jf, K: op.K}
	}
	var set error
	err = s.conn.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(code)), Filter: &code[0],
		})
	})
	if err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("packet filter: %w", set)
	}
	return nil
}

// filter passes packets with the opcode of a read or write request (RFC 1350 section 5: 1 and 2), but only
// one in heardOneIn from the addresses in shut. Offsets count from the UDP header, of 8 bytes; negative ones
// (SKF_NET_OFF of linux/filter.h) from the IP header, whose source is at 12.
func filter(shut []netip.Addr) []bpf.Instruction {
	const (
		udpHeader = 8
		ipSource  = 0xfff00000 + 12
	)
	drop, pass := bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 1 << 16}
	ops := []bpf.Instruction{
		bpf.LoadAbsolute{Off: udpHeader, Size: 2}, // a packet that is too short for a load is dropped
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: opRead, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: opWrite, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: ipSource, Size: 4},
	}
	for _, a := range shut {
		b := a.As4()
		ops = append(ops,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[:]), SkipTrue: 5},
			bpf.LoadExtension{Num: bpf.ExtRand},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: heardOneIn - 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
			drop,
			pass)
	}
	return append(ops, pass)
}
