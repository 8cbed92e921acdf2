package ipxe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A full house of requests that never end, and that have just sent a byte, keeps no new machine out. It costs
// neither a machine that is idle between two requests its connection, nor one that is in a download.
func TestUnfinishedRequestsMakeRoom(t *testing.T) {
	const most, size = 8, 64 << 20 // more than the socket's buffers hold
	ramdisk := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(ramdisk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ramdisk, size); err != nil {
		t.Fatal(err)
	}
	addr, l := slowPlane(t, ramdisk, func(l *limitedListener) { l.most = most })
	asks := func(who, ip string) (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := from(ip).Dial("tcp4", addr)
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		return conn, bufio.NewReader(conn)
	}
	get := func(who string, conn net.Conn, in *bufio.Reader, path, more string) *http.Response {
		t.Helper()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, more)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %v", who, resp, err)
		}
		return resp
	}
	read := func(who string, resp *http.Response, want int64) {
		t.Helper()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < want {
			t.Fatalf("%s got %d bytes, %v; want %d", who, n, err, want)
		}
	}
	script := "/boot.ipxe?" + fromROM
	idle, idleIn := asks("the idle machine", "127.4.0.1")
	read("the idle machine", get("the idle machine", idle, idleIn, script, ""), 1)
	busy, busyIn := asks("the download", "127.4.0.2")
	download := get("the download", busy, busyIn, RamdiskPath("amd64", "initrd"), "")

	for i := range 4 * most {
		for j := range most {
			stranger, _ := asks("a stranger", fmt.Sprintf("127.4.%d.%d", 1+i, 1+j))
			fmt.Fprint(stranger, "G")
		}
		eventually(t, "the house is full", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.total == most
		})
		who := fmt.Sprintf("new machine %d", i)
		conn, in := asks(who, fmt.Sprintf("127.5.0.%d", 1+i))
		read(who, get(who, conn, in, script, "Connection: close\r\n"), 1)
	}
	read("the idle machine", get("the idle machine, afterwards", idle, idleIn, script, ""), 1)
	read("the download", download, size)
}

func TestWhoseUnfinishedRequestEnds(t *testing.T) {
	const asked, idle = true, false
	type conn struct {
		client     string
		unfinished bool
		age        time.Duration
	}
	for name, c := range map[string]struct {
		conns []conn
		want  int // index, -1 for none
	}{
		"the oldest":               {[]conn{{"10.0.0.1", asked, 2}, {"10.0.0.2", asked, 3}, {"10.0.0.3", asked, 1}}, 1},
		"not one that is complete": {[]conn{{"10.0.0.1", idle, 9}, {"10.0.0.2", asked, 1}}, 1},
		"that of the address with the most": {
			[]conn{{"10.0.0.1", asked, 9}, {"10.0.0.2", asked, 1}, {"10.0.0.2", asked, 2}}, 2,
		},
		"complete ones count for no address": {
			[]conn{{"10.0.0.1", asked, 9}, {"10.0.0.2", idle, 1}, {"10.0.0.2", asked, 2}}, 0,
		},
		"none is unfinished": {[]conn{{"10.0.0.1", idle, 9}}, -1},
	} {
		l := &limitedListener{clients: map[netip.Addr]map[*limitedConn]struct{}{}}
		start, want := time.Now(), (*limitedConn)(nil)
		for i, s := range c.conns {
			client := netip.MustParseAddr(s.client)
			one := &limitedConn{client: client, opened: start.Add(-s.age * time.Second)}
			if !s.unfinished {
				one.asked.Store(done)
			}
			if l.clients[client] == nil {
				l.clients[client] = map[*limitedConn]struct{}{}
			}
			l.clients[client][one] = struct{}{}
			if i == c.want {
				want = one
			}
		}
		if got := l.unfinished(); got != want {
			t.Errorf("%s: %+v makes room, want %+v", name, got, want)
		}
	}
}

// A connection is unfinished again from the first byte of its next request.
func TestARequestIsWhole(t *testing.T) {
	addr, l := slowPlane(t, "")
	conn, err := from("127.0.0.1").Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	whole := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.clients[netip.MustParseAddr("127.0.0.1")] {
			return c.whole()
		}
		return false
	}
	for _, s := range []struct {
		sent  string
		whole bool
	}{
		{"GET /nope HTTP/1.1\r\n", false},
		{"Host: x\r\n\r\n", true},
		{"G", false},
		{"ET /nope HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n1", false},
	} {
		fmt.Fprint(conn, s.sent)
		eventually(t, fmt.Sprintf("whole is %v after %q", s.whole, s.sent), func() bool {
			return whole() == s.whole
		})
	}
}

// A long poll keeps its connection while it waits: its request is whole once its body was decoded.
func TestALongPollIsWhole(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	polls, end := make(chan error, 1), make(chan struct{})
	l, h := LimitConns(tcp, MaxTLSConns, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var ask struct{ BootID string }
		polls <- json.NewDecoder(r.Body).Decode(&ask)
		<-end
	}))
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	defer close(end)
	conn, err := net.Dial("tcp4", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{"BootID":"b"}` + "\n"
	fmt.Fprintf(conn, "POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := <-polls; err != nil {
		t.Fatal(err)
	}
	limited := l.(*limitedListener)
	limited.mu.Lock()
	defer limited.mu.Unlock()
	if c := mostIdle(limited.clients[netip.MustParseAddr("127.0.0.1")]); c == nil || !c.whole() {
		t.Error("a long poll that waits counts as an unfinished request")
	}
}
