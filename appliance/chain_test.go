package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/pin/tftp/v3"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// A chain is a UEFI machine's way to its boot script: DISCOVER, port 4011, a boot program by TFTP, a script
// by HTTP. Each answer says where the next request goes.
type chain struct {
	MAC     inventory.MAC
	Address netip.Addr // its own, which it has already
	For     time.Duration
}

// A chainEnd says how far a chain came.
type chainEnd struct {
	Server  netip.Addr // of the offer
	Address netip.Addr // in the offer; none from a proxy
	File    string     // as port 4011 said
	Script  string     // what the script chains to, or all of a short one
	Took    time.Duration
	Steps   []time.Duration // when each answer was complete
	Err     string
}

// boots runs the chain on a host and returns how it ended.
func (c chain) boots(t *testing.T, h testnet.Host) chainEnd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(self, "-test.run=^TestChain$")
	cmd.Env = append(os.Environ(), "APPLIANCE_TEST_CHAIN="+string(raw))
	out, err := cmd.Output()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	var end chainEnd
	if err != nil || json.Unmarshal(line, &end) != nil {
		t.Fatalf("the chain's helper: %v: %s", err, out)
	}
	return end
}

// TestChain is the helper process that goes through a chain.
func TestChain(t *testing.T) {
	env := os.Getenv("APPLIANCE_TEST_CHAIN")
	if env == "" {
		return // not skipped: nothing is left untested
	}
	var c chain
	if err := json.Unmarshal([]byte(env), &c); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), c.For)
	defer cancel()
	var end chainEnd
	if err := c.run(ctx, &end); err != nil {
		end.Err = err.Error()
	}
	end.Took = time.Since(start)
	if err := json.NewEncoder(os.Stdout).Encode(end); err != nil {
		t.Fatal(err)
	}
}

func (c chain) run(ctx context.Context, end *chainEnd) error {
	start := time.Now()
	done := func() { end.Steps = append(end.Steps, time.Since(start).Round(time.Millisecond)) }
	mac, err := net.ParseMAC(string(c.MAC))
	if err != nil {
		return err
	}
	p, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
	if err != nil {
		return err
	}
	offer, err := ask(ctx, p, "0.0.0.0:68", "255.255.255.255:67")
	if err != nil {
		return fmt.Errorf("DISCOVER: %w", err)
	}
	done()
	end.Server, _ = netip.AddrFromSlice(offer.ServerIdentifier().To4())
	end.Address, _ = netip.AddrFromSlice(offer.YourIPAddr.To4())
	if next, _ := netip.AddrFromSlice(offer.ServerIPAddr.To4()); next != end.Server {
		return fmt.Errorf("the offer is of %v, and its next server is %v", end.Server, next)
	}
	p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
	p.ClientIPAddr = c.Address.AsSlice()
	ack, err := ask(ctx, p, netip.AddrPortFrom(c.Address, 4011).String(),
		netip.AddrPortFrom(end.Server, 4011).String())
	if err != nil {
		return fmt.Errorf("REQUEST to port 4011: %w", err)
	}
	done()
	end.File = ack.BootFileNameOption()
	want, ok := ipxe.NBP(end.File)
	if !ok {
		return fmt.Errorf("port 4011 says %q, which is no boot program", end.File)
	}
	if err := fetchTFTP(ack.ServerIPAddr.String(), end.File, want); err != nil {
		return fmt.Errorf("%s by TFTP: %w", end.File, err)
	}
	done()
	u := fmt.Sprintf("http://%s:8080/boot.ipxe?mac=%s&arch=x86_64&platform=efi", ack.ServerIPAddr, c.MAC)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("boot script: %w", err)
	}
	defer resp.Body.Close()
	script, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("boot script: %s, %w", resp.Status, err)
	}
	done()
	end.Script = string(script)
	return nil
}

// ask sends a packet again and again until an answer with a boot file comes.
func ask(ctx context.Context, p *dhcpv4.DHCPv4, local, to string) (*dhcpv4.DHCPv4, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		})
	}}
	conn, err := lc.ListenPacket(ctx, "udp4", local)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	dst := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	buf := make([]byte, 2000)
	var sent time.Time
	for ctx.Err() == nil {
		if time.Since(sent) > 500*time.Millisecond { // firmware waits for longer
			sent = time.Now()
			if _, err := conn.WriteTo(p.ToBytes(), dst); err != nil && !errors.Is(err, syscall.ENETUNREACH) {
				return nil, err
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			continue
		}
		if r, err := dhcpv4.FromBytes(buf[:n]); err == nil && r.TransactionID == p.TransactionID &&
			r.OpCode == dhcpv4.OpcodeBootReply && r.BootFileNameOption() != "" {
			return r, nil
		}
	}
	return nil, errors.New("no answer")
}

func fetchTFTP(server, file string, want []byte) error {
	c, err := tftp.NewClient(net.JoinHostPort(server, "69"))
	if err != nil {
		return err
	}
	c.SetBlockSize(1468)
	c.SetTimeout(time.Second)
	c.SetRetries(100) // on a machine with other work on every core
	w, err := c.Receive(file, "octet")
	if err != nil {
		return err
	}
	var got bytes.Buffer
	if _, err := w.WriteTo(&got); err != nil {
		return err
	}
	if !bytes.Equal(got.Bytes(), want) {
		return fmt.Errorf("%d bytes that differ from the program's %d", got.Len(), len(want))
	}
	return nil
}

// from checks that a chain ended well, and that all its answers came from one server.
func (e chainEnd) from(t *testing.T, what string, server netip.Addr) {
	t.Helper()
	if e.Err != "" {
		t.Fatalf("%s: %s (after %v: %+v)", what, e.Err, e.Took.Round(time.Millisecond), e)
	}
	if e.Server != server || !strings.Contains(e.Script, "https://"+server.String()+":8443") {
		t.Errorf("%s: served from %v, with the script\n%s\nwant all from %v", what, e.Server, e.Script,
			server)
	}
}
