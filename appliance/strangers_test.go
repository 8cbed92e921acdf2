package appliance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
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
	// What goes well keeps its connection.
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
