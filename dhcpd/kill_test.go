package dhcpd

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/dhcpd/leases"
	"github.com/pxectl/pxectl/internal/testnet"
)

// killPlan has room for all clients of the test below.
var killPlan = Plan{LeaseTime: time.Hour, UnknownShare: 100, Subnets: []Subnet{{
	Subnet: netip.MustParsePrefix("10.77.0.0/16"),
	Pools:  []leases.Range{{First: ip("10.77.1.0"), Last: ip("10.77.200.255")}},
}}}

// The helper process: a server that can be killed.
func TestHelperServer(t *testing.T) {
	file := os.Getenv("DHCPD_TEST_LEASES")
	if file == "" {
		return // not skipped: nothing is left untested
	}
	s, err := Listen(Config{
		Interfaces: []Interface{{Name: "br0", Addr: ourAddr}},
		Decide:     boots,
		Log:        discard,
		Leases:     &LeaseConfig{Plan: killPlan, File: file},
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stderr, "serving")
	t.Fatal(s.Run(context.Background()))
}

// The helper process: a relay with many clients. It prints every ACK that it hears.
func TestHelperRelay(t *testing.T) {
	local := os.Getenv("DHCPD_TEST_RELAY")
	if local == "" {
		return // not skipped: nothing is left untested
	}
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip(local), dhcpPort)),
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(ourAddr, dhcpPort)))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := 0; ; i++ {
			mac := fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)
			if _, err := conn.Write(message(dhcpv4.MessageTypeDiscover, mac,
				through(local)).ToBytes()); err != nil {
				time.Sleep(time.Millisecond) // nobody is there (ICMP)
			}
			if i%32 == 31 {
				time.Sleep(5 * time.Millisecond)
			}
		}
	}()
	for buf := make([]byte, 2000); ; {
		n, err := conn.Read(buf)
		if err != nil {
			continue // likewise
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		a := addr(r.YourIPAddr).String()
		if r.MessageType() == dhcpv4.MessageTypeOffer {
			_, _ = conn.Write(message(dhcpv4.MessageTypeRequest, r.ClientHWAddr.String(), through(local),
				wanting(a), toServer(us)).ToBytes())
		} else {
			fmt.Println("HEARD", r.MessageType(), a, r.ClientHWAddr)
		}
	}
}

// A server that is killed in the middle of its work knows, when it is started again,
// every lease that a client was told of.
func TestKilledServerHasForgottenNothing(t *testing.T) {
	testnet.Need(t, "ip")
	testnet.Bridge(t, us+"/16")
	relay := testnet.NewHost(t, "relay", "10.77.0.9/16", "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leases")
	told := map[string]string{} // address → MAC
	for range 3 {
		server := exec.Command(self, "-test.run=^TestHelperServer$")
		// Only these variables: it must use our namespaces as they are, and not make them private once more.
		server.Env = []string{"PATH=" + os.Getenv("PATH"), "DHCPD_TEST_LEASES=" + file}
		start(t, server, "serving")
		clients := relay.Command(self, "-test.run=^TestHelperRelay$")
		clients.Env = append(os.Environ(), "DHCPD_TEST_RELAY=10.77.0.9")
		out, err := clients.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := clients.Start(); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(patience, func() { _ = clients.Process.Kill() })
		var acks int
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f := strings.Fields(lines.Text())
			if len(f) != 4 || f[0] != "HEARD" || f[1] != "ACK" {
				continue
			}
			told[f[2]] = f[3]
			if acks++; acks == 1000 {
				_ = server.Process.Kill()
				// What the server sent before it died is still heard.
				time.AfterFunc(300*time.Millisecond, func() { _ = clients.Process.Kill() })
			}
		}
		stop.Stop()
		_ = clients.Wait()
		if acks < 1000 {
			t.Fatalf("%d ACKs, want at least 1000", acks)
		}
		x, err := leases.Open(leases.Config{
			Path:    file,
			Subnets: []leases.Subnet{{Prefix: killPlan.Subnets[0].Subnet}},
			Log:     discard,
			Now:     time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		for a, mac := range told {
			if l, ok := x.At(ip(a)); !ok || l.MAC.String() != mac {
				t.Errorf("%s was told that it has %s; on the disk that is %q's", mac, a, l.MAC)
			}
		}
		x.Close()
	}
	t.Logf("%d leases were told", len(told))
}
