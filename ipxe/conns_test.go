package ipxe

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// slowPlane serves a boot plane behind LimitConns.
func slowPlane(
	t *testing.T, ramdisk string, change ...func(*limitedListener),
) (addr string, l *limitedListener) {
	t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited, h := LimitConns(tcp, MaxConns, Handler(Config{
		Decide:  waiting,
		Ramdisk: func(string, string) (string, bool) { return ramdisk, ramdisk != "" },
		Log:     slog.New(slog.DiscardHandler),
	}))
	l = limited.(*limitedListener)
	for _, f := range change {
		f(l)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return tcp.Addr().String(), l
}

// from is a client with a loopback address of its own.
func from(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 5 * time.Second}
}

// eventually polls, because the server learns of a closed connection some time later.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestSlowClientsLeaveAnotherBootUnharmed(t *testing.T) {
	for _, c := range []struct {
		name    string
		address func(i int) string
		held    int // connections that the server keeps open
	}{
		{"2000 connections from one address", func(int) string { return "127.0.0.2" }, maxConnsPerClient},
		{
			"2000 connections from 500 addresses",
			func(i int) string { return fmt.Sprintf("127.0.%d.%d", 3+i%2, 1+i%250) }, 2000,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, l := slowPlane(t, "")
			for i := range 2000 {
				conn, err := from(c.address(i)).Dial("tcp4", addr)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				defer conn.Close()
				_, _ = conn.Write([]byte("GET /boot.ipxe HTTP/1.1\r\nX-Slow: ")) // and send nothing more
			}
			held := func() int {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.total
			}
			eventually(t, fmt.Sprintf("%d connections held", c.held), func() bool { return held() == c.held })

			machine := &http.Client{
				Timeout: time.Minute, Transport: &http.Transport{DialContext: from("127.0.1.1").DialContext},
			}
			defer machine.CloseIdleConnections()
			start := time.Now()
			resp, err := machine.Get("http://" + addr + "/boot.ipxe?" + fromROM)
			if err != nil {
				t.Fatalf("a machine that boots meanwhile: %v", err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if took := time.Since(start); err != nil || resp.StatusCode != 200 || len(body) == 0 ||
				took > 20*time.Second {
				t.Errorf("a machine that boots meanwhile got %d, %d bytes, %v after %v; "+
					"want its script at once", resp.StatusCode, len(body), err, took)
			}
		})
	}
}

// TestFullHouse: a machine boots while strangers hold all connections, in each of the ways to hold one.
func TestFullHouse(t *testing.T) {
	testnet.Long(t)
	ramdisk := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(ramdisk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ramdisk, 1<<30); err != nil {
		t.Fatal(err)
	}
	for name, first := range map[string]string{
		"half a request":              "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ",
		"nothing":                     "",
		"a body that is never sent":   "POST /boot.ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
		"an answer that is not taken": "GET /ramdisk/amd64/initrd HTTP/1.1\r\nHost: x\r\n\r\n",
		"an idle connection":          "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			most := MaxConns
			if strings.Contains(name, "answer") {
				most = 4096 // each holds a file, too, and a test may not have as many descriptors
			}
			addr, l := slowPlane(t, ramdisk, func(l *limitedListener) { l.most = most })
			held := func() int {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.total
			}
			for i := range most {
				conn, err := from(fmt.Sprintf("127.1.0.%d", 1+i/maxConnsPerClient)).Dial("tcp4", addr)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, first)
			}
			if !strings.HasPrefix(first, "POST") { // the server has answered and closed the POST ones
				eventually(t, "the house is full", func() bool { return held() == most })
			}
			for i := range 20 { // each of which needs a place of its own
				machine := &http.Client{
					Timeout:   20 * time.Second,
					Transport: &http.Transport{DialContext: from(fmt.Sprintf("127.2.0.%d", 1+i)).DialContext},
				}
				resp, err := machine.Get("http://" + addr + "/boot.ipxe?" + fromROM)
				if err != nil {
					t.Fatalf("machine %d: %v", i, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || len(body) == 0 {
					t.Fatalf("machine %d got %d, %d bytes, %v; want its script", i, resp.StatusCode,
						len(body), err)
				}
				defer machine.CloseIdleConnections()
			}
			if n := held(); n > most {
				t.Errorf("%d connections are held, more than %d", n, most)
			}
		})
	}
}

// TestSlowReaderIsCut: a client below the least rate loses its connection; one at a steady rate gets
// everything.
func TestSlowReaderIsCut(t *testing.T) {
	const size = 64 << 20 // more than the socket's buffers hold
	ramdisk := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(ramdisk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ramdisk, size); err != nil {
		t.Fatal(err)
	}
	get := func(addr string) net.Conn {
		t.Helper()
		conn, err := from("127.0.0.1").Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "GET /ramdisk/amd64/initrd HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	addr, _ := slowPlane(t, ramdisk)
	conn := get(addr)
	if n, err := io.Copy(io.Discard, conn); err != nil || n < size {
		t.Errorf("a reader at full speed got %d bytes, %v; want %d and more", n, err, size)
	}
	addr, l := slowPlane(t, ramdisk, func(l *limitedListener) { l.rate, l.grace = 1<<30, time.Second })
	slow := get(addr)
	// The answer has begun; the client reads no more.
	if _, err := io.ReadFull(slow, make([]byte, len("HTTP/1.0 200 OK"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the one who takes nothing is cut", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.total == 0
	})
	if n, _ := io.Copy(io.Discard, slow); n >= size {
		t.Errorf("the one who takes nothing got all %d bytes", n)
	}
}

func TestLimitsForget(t *testing.T) {
	addr, l := slowPlane(t, "")
	for range 3 * maxConnsPerClient {
		conn, err := from("127.0.0.1").Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /nope HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Fatalf("one connection after another: %v", err)
		}
		conn.Close()
	}
	eventually(t, "no connection is counted any more", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.total == 0 && len(l.clients) == 0
	})
}

// A fileSink is a ResponseWriter with ReadFrom, as net/http's on a TCP connection.
type fileSink struct {
	*httptest.ResponseRecorder
	file *os.File
}

func (s *fileSink) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		s.file, _ = l.R.(*os.File)
	}
	return io.Copy(s.ResponseRecorder, r)
}

// A wrapper that hides ReadFrom costs a copy of every byte through user space: sendfile needs the file at one
// end of the chain and the TCP connection at the other. The row http-cpu of bench measures it.
func TestNothingStandsInTheWayOfSendfile(t *testing.T) {
	var conn net.Conn = &limitedConn{}
	if _, ok := conn.(io.ReaderFrom); !ok {
		t.Error("the limited connection has no ReadFrom")
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	h := Handler(Config{
		Decide: waiting, Ramdisk: func(string, string) (string, bool) { return path, true },
		Observe: func(Request) {}, Log: slog.New(slog.DiscardHandler),
	})
	sink := &fileSink{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(sink, httptest.NewRequest("GET", RamdiskPath("amd64", "initrd"), nil))
	if sink.Code != 200 || sink.Body.Len() != 1<<20 || sink.file == nil {
		t.Errorf("a download: %d, %d bytes, from the file itself: %v; want 200, 1 MiB, from the file",
			sink.Code, sink.Body.Len(), sink.file != nil)
	}
}

// Setting the time of day cuts no download and keeps no idle connection open.
func TestConnectionsWhileTheClockIsSet(t *testing.T) {
	c := &limitedConn{opened: time.Now()}
	c.touch()
	if at := c.moved().String(); !strings.Contains(at, " m=") {
		t.Errorf("it moved last at %s, want a time that a clock that is set does not change", at)
	}
}
