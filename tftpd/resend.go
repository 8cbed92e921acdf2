package tftpd

import (
	"context"
	"errors"
	"slices"
	"time"
)

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

// due sends lost packets again, and gives up on clients that went away.
func (s *Server) due(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &s.exchanges
	quiet := x.count < maxUnproven/4
	for _, e := range x.order {
		switch age := now.Sub(e.sent); {
		case !x.isUnproven(e):
		case now.Sub(e.begun) >= (1+retries)*ackTimeout:
			s.settle(e, errSilent)
		case quiet && e.tries < unprovenRetries && age >= ackTimeout<<e.tries:
			s.resend(e, now)
		}
	}
	x.order = slices.DeleteFunc(x.order, func(e *exchange) bool { return !x.isUnproven(e) })
	for _, e := range x.byID {
		switch {
		case e.ending != nil || e.settled:
		case now.Sub(e.begun) >= transferTimeout:
			s.end(e, errTooLong)
		case !e.waiting || now.Sub(e.sent) < ackTimeout:
		case e.tries >= retries:
			s.end(e, errSilent)
		default:
			s.resend(e, now)
		}
	}
	s.admitWaiting(now, true)
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
