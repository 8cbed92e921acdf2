package appliance

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// A connection that does not complete its request header is closed after ten seconds, whatever it sends. A
// slow download is not closed.
func TestHeaderTimeout(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	const large = 256 << 20 // more than socket buffers hold
	file := filepath.Join(s.data, "ramdisk", "arm64", "vmlinuz")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644),
		os.Truncate(file, large)); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, c := range []struct {
		name, port, first, more string
	}{
		{"silence", "8080", "", ""},
		{"half a header", "8080", "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ", ""},
		{"a header without end", "8080", "GET /boot.ipxe HTTP/1.1\r\nX-Slow: ", "x"},
		{"silence to TLS", "8443", "", ""},
		{"half a handshake", "8443", "\x16\x03\x01\x02\x00\x01", ""},
	} {
		all.Go(func() {
			start := time.Now() // the appliance accepts it later
			conn, err := net.Dial("tcp4", "10.77.0.1:"+c.port)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, c.first)
			buf := make([]byte, 512)
			for time.Since(start) < patience {
				_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
				if _, err = conn.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				_, _ = io.WriteString(conn, c.more)
			}
			if took := time.Since(start); took < 9*time.Second || took > patience {
				t.Errorf("%s on port %s was closed after %v (%v), want 10 s", c.name, c.port,
					took.Round(time.Millisecond), err)
			}
		})
	}
	all.Go(func() {
		conn, err := net.Dial("tcp4", "10.77.0.1:8080")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		start := time.Now()
		_, _ = io.WriteString(conn, "GET /ramdisk/arm64/vmlinuz HTTP/1.0\r\n\r\n")
		var got int
		for buf := make([]byte, 1<<20); err == nil; {
			var n int
			if n, err = conn.Read(buf); time.Since(start) < 12*time.Second {
				time.Sleep(250 * time.Millisecond)
			}
			got += n
		}
		if took := time.Since(start); got < large || took < 12*time.Second {
			t.Errorf("a slow download ended after %v with %d bytes (%v), want all %d", took, got, err, large)
		}
	})
	all.Wait()
}
