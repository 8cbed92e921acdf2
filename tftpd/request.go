package tftpd

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/pxectl/pxectl/internal/bug"
)

// readRequests reads what arrives at the TFTP port.
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

// request sends the first answer to a request. The transfer starts when the client has proved its address.
func (s *Server) request(
	ctx context.Context, raw []byte, from netip.AddrPort, local netip.Addr, ifindex int,
) {
	now := time.Now()
	if !s.flood.admits(from.Addr(), now) {
		return
	}
	if s.again(raw, from, now) {
		return
	}
	e := &exchange{begun: now, port: s.ports[rand.N(len(s.ports))], said: string(raw)}
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
	case before.whole(): // the library is about to report its end
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

// again answers a repeated request as it was answered before, since that answer may be lost. When the
// client's transfer runs and the client is not silent, the request is late and gets no answer. again returns
// false when the request is a new one.
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

// openFile asks the Opener. A panic in the Opener ends only this request.
func (s *Server) openFile(ctx context.Context, r Request) (file []byte, err error) {
	defer bug.Return(s.cfg.Log, "tftp: open "+strconv.Quote(r.Name), &err)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return s.cfg.Open(ctx, r)
}
