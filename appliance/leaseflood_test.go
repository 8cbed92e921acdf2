package appliance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// What strangers may cost: the limits are at least twice what was measured.
const (
	enoughStrangers = 300_000 // packets from strangers
	strangersMemory = 128 << 20
	strangersLeases = 3 << 20
	strangersStore  = 24 << 20
)

// Strangers send a DHCP server hundreds of thousands of packets over real sockets. Memory, lease file and
// database stay small, and a known machine boots. In dhcpd/leases, a million go through the lease table
// alone.
func TestStrangersWithoutEnd(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t,
		"dhcp: {mode: server, server: {subnets: [{subnet: 10.77.0.0/24, pools: "+
			"[10.77.0.100-10.77.0.199]}]}}\n")
	h := client(t)
	hostile := testnet.NewHost(t, "hostile", "10.77.0.66/24", "52:54:00:66:00:01")
	if _, err := s.engine.AddMachine(t.Context(), "test",
		deploy.NewMachine{Name: "m1", MACs: []inventory.MAC{clientMAC}}); err != nil {
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	before, peak := resident(t), 0
	f := startFlood(t, hostile, "strangers")
	machine := chain{MAC: clientMAC, Address: netip.MustParseAddr("10.77.0.60"), For: patience}
	var boots []time.Duration
	for enough := false; !enough; {
		select {
		case <-f.enough:
			enough = true // the machine boots once more
		case <-time.After(200 * time.Millisecond):
		}
		got := machine.boots(t, h)
		got.from(t, "a known machine within the flood", netip.MustParseAddr("10.77.0.1"))
		if got.Address.IsUnspecified() {
			t.Fatal("a known machine is offered no address")
		}
		boots = append(boots, got.Took.Round(time.Millisecond))
		peak = max(peak, resident(t))
	}
	f.halt()
	slices.Sort(boots)
	size := func(name string) int64 {
		t.Helper()
		st, err := os.Stat(filepath.Join(s.data, name))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	leases, store := size("leases"), size("pxectl.db")
	t.Logf("strangers sent %d packets; a known machine booted %d times, at most %v; "+
		"memory +%d MiB, leases %d KiB, database %d KiB",
		f.Sent["67"], len(boots), boots[len(boots)-1], (peak-before)>>20, leases>>10, store>>10)
	if peak-before > strangersMemory {
		t.Errorf("memory grew from %d to %d MiB, want at most %d MiB more", before>>20, peak>>20,
			strangersMemory>>20)
	}
	if leases > strangersLeases || store > strangersStore {
		t.Errorf("the lease file has %d bytes and the database %d, want at most %d and %d", leases, store,
			strangersLeases, strangersStore)
	}
	events, err := s.engine.Events(0, "", 100_000)
	if err != nil || len(events) > boltdb.Unowned+boltdb.PerMachine {
		t.Errorf("%d events, %v, want at most those that are kept of strangers and of one machine",
			len(events), err)
	}
}

// strangers plays machines that nobody has seen, each once: it asks for an address, takes the one that it is
// offered, and releases most of them, so that there are more to take.
func strangers(ctx context.Context, t *testing.T, sent *atomic.Int64) {
	lc := net.ListenConfig{}
	conn, err := lc.ListenPacket(ctx, "udp4", ":68")
	if err != nil {
		t.Error(err)
		return
	}
	us := &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}
	say := func(kind dhcpv4.MessageType, mac net.HardwareAddr, more ...dhcpv4.Modifier) {
		p, err := dhcpv4.New(append(more, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(kind))...)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.WriteTo(p.ToBytes(), us); err == nil && sent.Add(1) == enoughStrangers {
			fmt.Println("enough")
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		buf := make([]byte, 2000)
		for ctx.Err() == nil {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				continue
			}
			r, err := dhcpv4.FromBytes(buf[:n])
			switch ours := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us.IP)); {
			case err != nil || r.ClientHWAddr[0] != 2:
			case r.MessageType() == dhcpv4.MessageTypeOffer:
				say(dhcpv4.MessageTypeRequest, r.ClientHWAddr, ours,
					dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(r.YourIPAddr)))
			case r.MessageType() == dhcpv4.MessageTypeAck && rand.IntN(10) > 0:
				say(dhcpv4.MessageTypeRelease, r.ClientHWAddr, ours, dhcpv4.WithClientIP(r.YourIPAddr))
			}
		}
	}()
	for ctx.Err() == nil {
		for i := range 50 {
			mac := net.HardwareAddr{
				2, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()),
				byte(rand.Uint32()), byte(rand.Uint32()),
			}
			if i%2 == 0 {
				say(dhcpv4.MessageTypeDiscover, mac)
				continue
			}
			say(dhcpv4.MessageTypeDiscover, mac,
				dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
				dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
		}
		time.Sleep(time.Millisecond)
	}
}

// resident returns the resident memory of this process, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
