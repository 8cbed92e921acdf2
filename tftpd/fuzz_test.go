package tftpd

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func FuzzRequest(f *testing.F) {
	f.Add(rrq("snponly.efi", "TSIZE", "0", "blksize", "1468", "windowsize", "4"))
	f.Add([]byte("\x00\x02x\x00octet\x00"))
	f.Add([]byte("\x00\x01lines\x00netascii"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, write, err := parseRequest(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("parseRequest(%q) = %v", b, err)
			}
			return
		}
		if write {
			return
		}
		e := &exchange{wish: w, data: boot["lines"], client: "c"}
		e.BlockSize, _ = w.blockSize(blockSize)
		first := e.begin()
		if e.BlockSize < minBlock || e.BlockSize > blockSize || len(first) > 4+minBlock {
			t.Errorf("%q: block size %d, first answer of %d bytes", b, e.BlockSize, len(first))
		}
		// The library gets a request that asks for the same.
		again, write, err := parseRequest(e.request())
		if size, _ := again.blockSize(blockSize); err != nil || write || size != e.BlockSize ||
			again.netascii != w.netascii {
			t.Errorf("%q is given on as %q", b, e.request())
		}
		if told := e.accepted(e.BlockSize, len(e.data)); len(told) > 2 ||
			(len(told) == 0) != (first[1] == opData) {
			t.Errorf("%q: told %v, and the first answer is %q", b, told, first[:2])
		}
	})
}

// Whatever clients send to a port of transfers, the server goes on.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x00"), []byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x05\x00\x00"), []byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x04\x00\x00"), []byte("\x00\x05\x00\x00x"))
	s, err := Listen(Config{Addr: "127.0.0.1:0", Open: openBoot})
	if err != nil {
		f.Fatal(err)
	}
	run(f, s)
	k, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { k.Close() })
	from := k.LocalAddr().(*net.UDPAddr).AddrPort()
	f.Fuzz(func(t *testing.T, a, b []byte) {
		s.request(t.Context(), rrq("exact", "blksize", "1024"), from, netip.MustParseAddr("127.0.0.1"), 1)
		s.mu.Lock()
		e := s.exchanges.byClient[from]
		s.mu.Unlock()
		if e == nil {
			return // it was taken for a late request of a transfer that has just ended
		}
		s.answer(e.port, from, a, time.Now())
		s.answer(e.port, from, b, time.Now())
		s.answer(e.port, from, (&refusal{0, "end"}).packet(), time.Now())
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.exchanges.byClient[from] == e {
			t.Error("the client's ERROR did not end its exchange")
		}
	})
}
