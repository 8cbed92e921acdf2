package tftpd

import (
	"net/netip"
	"testing"
	"time"
)

// A steppedServer is a server that does not run: the test hands it packets, and says when a transfer is over.
type steppedServer struct {
	*Server
	t     *testing.T
	ports uint16
}

func newStepped(t *testing.T, cfg Config) *steppedServer {
	t.Helper()
	cfg.Addr, cfg.Open = "127.0.0.1:0", openBoot
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &steppedServer{Server: s, t: t, ports: 20000}
}

// prove makes a client ask for a file and acknowledge the answer. The acknowledgement comes an hour from now,
// so that the client never counts as silent.
func (h *steppedServer) prove(ip string) *exchange {
	h.t.Helper()
	h.ports++
	from := netip.AddrPortFrom(netip.MustParseAddr(ip), h.ports)
	h.request(h.t.Context(), rrq("snponly.efi", "blksize", "1468"), from, netip.MustParseAddr("127.0.0.1"), 1)
	h.mu.Lock()
	e := h.exchanges.byClient[from]
	h.mu.Unlock()
	if e == nil {
		h.t.Fatalf("the request of %s is not answered", ip)
	}
	h.answer(e.port, from, blockPacket(opAck, 0), time.Now().Add(time.Hour))
	return e
}

// finish ends a transfer, as the library does.
func (h *steppedServer) finish(e *exchange) {
	h.mu.Lock()
	h.leave(e)
	h.mu.Unlock()
	h.over(e, 0, nil)
}

func (h *steppedServer) wants(what string, e *exchange, runs, waits bool) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := false
	for _, o := range h.exchanges.waiting {
		waiting = waiting || o == e
	}
	if (e.try != nil) != runs || waiting != waits {
		h.t.Errorf("%s: runs %v, waits %v, refused with %v, want %v, %v", what, e.try != nil, waiting, e.Err,
			runs, waits)
	}
}

// An exchange that waits because its address is at its limit does not make other addresses wait.
func TestFullAddressKeepsNobodyWaiting(t *testing.T) {
	h := newStepped(t, Config{MaxTransfers: 2, MaxPerClient: 1})
	a1, b1 := h.prove("127.0.0.1"), h.prove("127.0.0.2")
	a2, c1 := h.prove("127.0.0.1"), h.prove("127.0.0.3")
	h.wants("the address's second", a2, false, true)
	h.wants("another, while all are busy", c1, false, true)
	h.finish(b1)
	h.wants("the address's second, when another's has ended", a2, false, true)
	h.wants("another, when a transfer is free", c1, true, false)
	h.finish(a1)
	h.wants("the address's second, when its first has ended", a2, true, false)
}

// The exchanges of one address that wait are bounded, so that others can wait, too.
func TestOneAddressWaitsFewTimes(t *testing.T) {
	h := newStepped(t, Config{MaxTransfers: 8, MaxPerClient: 2})
	var all []*exchange
	for range 5 {
		all = append(all, h.prove("127.0.0.1"))
	}
	for i, e := range all {
		h.wants("one of five", e, i < 2, i == 2 || i == 3)
	}
	if all[4].Err == nil {
		t.Error("the fifth waits, want it refused: two run and two wait")
	}
	h.wants("another address", h.prove("127.0.0.2"), true, false)
}

// An exchange whose own address is at its limit does not end another address's silent transfer.
func TestFullAddressDisplacesNobody(t *testing.T) {
	h := newStepped(t, Config{MaxTransfers: 2, MaxPerClient: 1})
	silent, own := h.prove("127.0.0.2"), h.prove("127.0.0.1")
	h.mu.Lock()
	silent.heard = time.Time{}
	h.mu.Unlock()
	h.wants("the address's second", h.prove("127.0.0.1"), false, true)
	h.wants("the silent one", silent, true, false)
	h.wants("the address's first", own, true, false)
	h.wants("one that may start", h.prove("127.0.0.3"), true, false)
	h.wants("the silent one, then", silent, false, false)
}
