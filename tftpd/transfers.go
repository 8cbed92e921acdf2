package tftpd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/pin/tftp/v3"

	"github.com/pxectl/pxectl/internal/bug"
)

// readAnswers reads what clients send to a port of transfers.
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

// answer handles a client's packet to a transfer. An ERROR is never answered (RFC 1350 section 7); nor is a
// packet that does not fit, since an answer to a late one would confuse a client that goes on.
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

// admit starts the transfer of a client that has proved itself, or makes it wait. At most MaxPerClient
// exchanges of an address wait.
func (s *Server) admit(e *exchange, now time.Time) {
	if s.start(e, now, true) == started {
		return
	}
	x := &s.exchanges
	switch own := x.waitingOf(e.Client.Addr()); {
	case own >= s.cfg.MaxPerClient:
		s.refuse(e, fmt.Errorf("%d transfers of this address wait already", own))
	case len(x.waiting) >= s.cfg.MaxTransfers:
		s.refuse(e, fmt.Errorf("all %d transfers are busy, and as many wait", s.cfg.MaxTransfers))
	default:
		x.waiting = append(x.waiting, e)
	}
}

// A room is the outcome of trying to start a transfer.
type room int

const (
	started     room = iota
	addressFull      // the address has as many as it may have; another address's may start
	allFull
)

// start starts a transfer if there is room. With displace it ends the transfer of a silent client to make
// room.
func (s *Server) start(e *exchange, now time.Time, displace bool) room {
	x := &s.exchanges
	silent := func(among func(*exchange) bool) bool {
		if !displace {
			return false
		}
		o := x.mostSilent(among)
		if o == nil || now.Sub(o.heard) < silentFor {
			return false
		}
		s.end(o, errMakeRoom)
		return true
	}
	// Check the address's own limit first, so that a refusal displaces no other address's transfer.
	own := e.Client.Addr()
	if s.stalls.count(own) >= s.cfg.MaxPerClient &&
		!silent(func(o *exchange) bool { return o.Client.Addr() == own }) {
		return addressFull
	}
	if x.running >= s.cfg.MaxTransfers && !silent(func(*exchange) bool { return true }) {
		return allFull
	}
	e.try, e.echo, e.tries = s.stalls.begin(e.client, own, e.BlockSize), true, 0
	x.running++
	x.byID[e.id] = e
	s.engine.give(e.from(), e.request())
	return started
}

// fromEngine handles a packet that the library sends to a client.
func (s *Server) fromEngine(id uint64, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exchanges.byID[id]
	switch {
	case e == nil || len(b) < 4:
	case e.ending != nil && b[1] != opError:
		s.engine.give(e.from(), (&refusal{0, "end"}).packet())
	case b[1] == opError: // not sent: we send clients our own ERROR, if any
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

// transfer is the library's handler of a read request. It runs on a goroutine of its own.
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

// over is called when the library has ended a transfer.
func (s *Server) over(e *exchange, n int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Bytes = n
	delete(s.exchanges.byID, e.id)
	if e.ending != nil {
		err = e.ending
	}
	s.settle(e, err)
	s.admitWaiting(time.Now(), false)
}

// end ends an exchange early. A running transfer is reported when the library has ended it, too.
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

// leave hides an exchange from clients' packets, and makes room for another transfer.
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
	e.Err, e.settled, e.Took = err, true, time.Since(e.begun)
	s.leave(e)
	s.exchanges.waiting = slices.DeleteFunc(s.exchanges.waiting, func(o *exchange) bool { return o == e })
	s.report(e.Transfer)
}

// refuse ends an exchange for which there is no room, and tells the client that the server is busy.
func (s *Server) refuse(e *exchange, why error) {
	s.send(e.port, e.Client, e.Server, errBusy.packet())
	s.settle(e, why)
}

// dropUnproven forgets the request of a client that has not proved itself, to make room for another request.
// It reports the flood to the log once a minute, and no request to the timeline.
func (s *Server) dropUnproven(e *exchange, now time.Time) {
	s.exchanges.leaveUnproven(e)
	e.settled = true
	s.leave(e)
	if now.Sub(s.crowded) >= time.Minute {
		s.crowded = now
		s.cfg.Log.Warn(
			"tftp: more requests that nobody acknowledges than are remembered; the oldest are forgotten",
			"client", e.Client, "name", e.Name)
	}
}

// admitWaiting starts exchanges that wait, those that wait the longest first. It skips those whose address
// has reached its limit.
func (s *Server) admitWaiting(now time.Time, displace bool) {
	x := &s.exchanges
	var full map[netip.Addr]bool // addresses at their limit: look at their transfers only once
	all := false
	x.waiting = slices.DeleteFunc(x.waiting, func(e *exchange) bool {
		if all || full[e.Client.Addr()] {
			return false
		}
		switch s.start(e, now, displace) {
		case started:
			return true
		case allFull:
			all = true
		case addressFull:
			if full == nil {
				full = map[netip.Addr]bool{}
			}
			full[e.Client.Addr()] = true
		}
		return false
	})
}

// A contextReader ends a transfer at the next block once its context has ended, and notes when a block is
// read: the library reads one when the client has acknowledged the one before.
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
