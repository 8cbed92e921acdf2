package appliance

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/ipxe"
)

// TestRefusedRequestsEndTheirConnection: neither an error nor a body that never comes holds a connection.
func TestRefusedRequestsEndTheirConnection(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(forStrangers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/reads":
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, "no body", http.StatusBadRequest)
			}
		case "/refuses":
			http.Error(w, "who are you?", http.StatusUnauthorized)
		}
	}), time.Second))
	defer srv.Close()
	var refused sync.WaitGroup
	for _, request := range []string{
		"GET /refuses HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /refuses HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"POST /refuses HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
		"POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
		"POST /reads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", // nobody reads it
	} {
		refused.Go(func() {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			fmt.Fprint(conn, request)
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("%q: the connection is still open: %v", request, err)
			}
		})
	}
	refused.Wait()
	// A successful request keeps its connection open.
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	for range 2 {
		fmt.Fprint(conn, "POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("a request that is whole: %v, %v", resp, err)
		}
		resp.Body.Close()
	}
}

// TestTheWiringBoundsStrangers: the ports of a whole appliance have these bounds. A body that never comes
// ends its connection after strangersBody.
func TestTheWiringBoundsStrangers(t *testing.T) {
	testnet.Need(t, "ip")
	newSite(t)
	plain := func() (net.Conn, error) { return net.Dial("tcp", "10.77.0.1:8080") }
	secure := func() (net.Conn, error) {
		return tls.Dial("tcp", "10.77.0.1:8443", &tls.Config{
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		})
	}
	const body = "Host: x\r\nContent-Length: 1000\r\n\r\nhalf"
	const form = "Content-Type: application/x-www-form-urlencoded\r\n" + body
	var all sync.WaitGroup
	for _, c := range []struct {
		name    string
		dial    func() (net.Conn, error)
		request string
		first   string // of the answer
		most    time.Duration
	}{
		{"no such file", plain, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404", strangersBody / 2},
		{
			"no such image", plain, "GET /images/x/disk.zst HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404",
			strangersBody / 2,
		},
		{
			"no nonce", secure, "GET /agent/v1/images/x/manifest HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 401",
			strangersBody / 2,
		},
		{"no such call", secure, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404", strangersBody / 2},
		{"a body that nobody reads", plain, "GET /start.ipxe HTTP/1.1\r\n" + body, "", 2 * strangersBody},
		{
			"a form without its token", plain, "POST /phone-home/d-1/t HTTP/1.1\r\n" + form, "HTTP/1.1 403",
			2 * strangersBody, // net/http reads the rest of a short body, and keeps nothing of it
		},
		{"a body of nobody", secure, "POST /agent/v1/next HTTP/1.1\r\n" + body, "", 2 * strangersBody},
		{
			"a body with a nonce", secure,
			"POST /agent/v1/register HTTP/1.1\r\nAuthorization: Bearer x\r\n" + body, "", 2 * strangersBody,
		},
	} {
		all.Go(func() {
			conn, err := c.dial()
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(c.most))
			fmt.Fprint(conn, c.request)
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), c.first) {
				t.Errorf("%s: the connection is still open, or the answer another: %v, %.60q", c.name, err,
					answer)
			}
		})
	}
	all.Wait()
}

// The agents' port takes fewer connections, since each costs more. The one that was idle for longest is
// closed for a new one.
func TestAgentsHaveFewerConnections(t *testing.T) {
	testnet.Need(t, "ip")
	newSite(t)
	var first net.Conn
	for i := range ipxe.MaxTLSConns + 1 {
		// The first address has the most connections.
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+max(i-8, 0)/32))}}
		conn, err := d.Dial("tcp4", "10.77.0.1:8443")
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		if first == nil {
			first = conn
		}
	}
	start := time.Now()
	_ = first.SetReadDeadline(start.Add(time.Minute))
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the first connection ends with %v after %v, want it reset to make room", err,
			time.Since(start))
	}
}
