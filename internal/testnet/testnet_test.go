package testnet

import (
	"net"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestHostsReachEachOther(t *testing.T) {
	Need(t, "ip")
	Bridge(t, "10.88.0.1/24")
	h := NewHost(t, "peer", "10.88.0.2/24", "52:54:00:00:00:02")
	l, err := net.Listen("tcp", "10.88.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("hello"))
		c.Close()
	}()
	if got := h.Run(t, "bash", "-c", "cat < /dev/tcp/10.88.0.1/"+port); got != "hello" {
		t.Fatalf("peer read %q, want %q", got, "hello")
	}
}
