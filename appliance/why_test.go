package appliance

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// TestBootClient is the helper process that plays firmware: one packet per word.
func TestBootClient(t *testing.T) {
	words := os.Getenv("APPLIANCE_TEST_CLIENT")
	if words == "" {
		return // not skipped: nothing is left untested
	}
	mac, err := net.ParseMAC(string(clientMAC))
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(words) {
		p, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true),
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
		if err != nil {
			t.Fatal(err)
		}
		local, to := ":68", "255.255.255.255:67"
		switch word {
		case "alpha":
			// DEC Alpha: RFC 4578 section 2.1
			p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 3}))
		case "request":
			p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
			p.UpdateOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 2)))
			p.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 60)))
		case "4011":
			p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
			p.ClientIPAddr = net.IPv4(10, 77, 0, 60)
			local, to = "10.77.0.60:4011", "10.77.0.1:4011"
		}
		send(t, p, local, to)
	}
}

// send sends one packet and waits for the first answer, one second at most.
func send(t *testing.T, p *dhcpv4.DHCPv4, local, to string) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET,
				unix.SO_BROADCAST, 1)
		})
	}}
	conn, err := lc.ListenPacket(t.Context(), "udp4", local)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(p.ToBytes(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _, _ = conn.ReadFrom(make([]byte, 2000))
}

// firmware lets the client send the packets that words names.
func firmware(t *testing.T, h testnet.Host, words string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(self, "-test.run=^TestBootClient$")
	cmd.Env = append(os.Environ(), "APPLIANCE_TEST_CLIENT="+words)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Each fault is made on a real wire, and `why` names it.
func TestWhyOnTheWire(t *testing.T) {
	testnet.Need(t, "ip", "dnsmasq", "curl")
	fetch := func(t *testing.T, h testnet.Host, args ...string) {
		t.Helper()
		// Faults are what is tested.
		_ = h.Command("curl",
			append([]string{"--silent", "--output", "/dev/null", "--max-time", "12"}, args...)...).Run()
	}
	script := "http://10.77.0.1:8080/boot.ipxe?mac=" + string(clientMAC) +
		"&arch=x86_64&platform=efi&busid=01-80-86-15-33"
	for _, c := range []struct {
		name           string
		config         string   // of ours
		dnsmasq        []string // beside us; nil for no other server
		play           func(t *testing.T, h testnet.Host)
		sentence, next string
		evidence       string
	}{
		{
			name:     "nobody gives an address",
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover") },
			sentence: "took no address: no DHCP server gave it one",
			next:     "does the DHCP server of this network run",
			evidence: "OFFER snponly.efi",
		},
		{
			name: "another server's boot file won", dnsmasq: []string{"--dhcp-boot=pxelinux.0"},
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover request") },
			sentence: `another DHCP server, 10.77.0.2, told it to boot "pxelinux.0"`,
			next:     "take the boot options (66, 67, next-server) out of 10.77.0.2",
			evidence: "from another server, 10.77.0.2",
		},
		{
			name: "neither 4011 nor TFTP", dnsmasq: []string{},
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover request") },
			sentence: "an address from 10.77.0.2, and neither a request on port 4011 nor one by TFTP came",
			next:     "let UDP 4011 and 69 in",
			evidence: "from another server, 10.77.0.2: the address",
		},
		{
			name: "4011 and no TFTP", dnsmasq: []string{},
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover request 4011") },
			sentence: "told on port 4011 to fetch snponly.efi, and no TFTP request",
			next:     "let UDP 69 in",
			evidence: "on port 4011: ACK snponly.efi",
		},
		{
			name: "another server's file on our TFTP", dnsmasq: []string{"--dhcp-boot=pxelinux.0,,10.77.0.1"},
			play: func(t *testing.T, h testnet.Host) {
				firmware(t, h, "discover request")
				fetch(t, h, "tftp://10.77.0.1/pxelinux.0")
			},
			sentence: `asked by TFTP for "pxelinux.0", which is not ours`,
			next:     "out of 10.77.0.2, which names that file",
			evidence: "pxelinux.0: no such file",
		},
		{
			name: "full-size frames get lost",
			play: func(t *testing.T, h testnet.Host) {
				h.Run(t, "ip", "link", "set", "eth0", "mtu", "1400")
				firmware(t, h, "discover request 4011")
				fetch(t, h, "--tftp-blksize", "1468", "tftp://10.77.0.1/snponly.efi")
			},
			sentence: "asked for snponly.efi by TFTP, and the transfer stalls",
			next:     "compare the MTU",
			evidence: "stopped acknowledging",
		},
		{
			name: "the program does not run",
			play: func(t *testing.T, h testnet.Host) {
				firmware(t, h, "discover request 4011")
				fetch(t, h, "tftp://10.77.0.1/snponly.efi")
			},
			sentence: "fetched snponly.efi whole, and that never asked for its script",
			next:     "switch Secure Boot off",
			evidence: "snponly.efi: ",
		},
		{
			name: "the agent never called",
			play: func(t *testing.T, h testnet.Host) {
				firmware(t, h, "discover request 4011")
				fetch(t, h, "tftp://10.77.0.1/snponly.efi")
				fetch(t, h, script)
				fetch(t, h, "http://10.77.0.1:8080/ramdisk/amd64/vmlinuz")
				fetch(t, h, "http://10.77.0.1:8080/ramdisk/amd64/initrd")
			},
			sentence: "its agent never called: the kernel does not start, " +
				"or has no driver for the network card (PCI 8086:1533)",
			next:     "look at its console",
			evidence: "/ramdisk/amd64/initrd: 200",
		},
		{
			name: "a script and no kernel",
			play: func(t *testing.T, h testnet.Host) {
				firmware(t, h, "discover request 4011")
				fetch(t, h, "tftp://10.77.0.1/snponly.efi")
				fetch(t, h, script)
			},
			sentence: "has its script and fetched no kernel",
			next:     "look at its console",
			evidence: "boot script: agent",
		},
		{
			name:     "the pool is empty",
			config:   `dhcp: {mode: server, server: {subnets: [{subnet: 10.77.0.0/24}]}}` + "\n",
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover") },
			sentence: "got no answer: no free address in the pool",
			next:     "widen dhcp.server.subnets[].pools",
			evidence: "no answer: no free address",
		},
		{
			name:     "strangers hold their share",
			config:   strings.Replace(serverMode, "server: {sub", "server: {unknown_share: 0, sub", 1),
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "discover") },
			sentence: "got no answer: unknown machines hold as many addresses as they may",
			next:     "known ones get an address: `pxectl machine add NAME --mac " + string(clientMAC),
			evidence: "no answer: unknown machines",
		},
		{
			name:     "an architecture without a program",
			play:     func(t *testing.T, h testnet.Host) { firmware(t, h, "alpha") },
			sentence: "got no answer: no boot program for",
			next:     "choose another boot mode in its firmware",
			evidence: "no boot program for",
		},
		{
			name: "an interface that is not configured",
			play: func(t *testing.T, h testnet.Host) {
				plug(t, "v-client", "nomaster")
				firmware(t, h, "discover")
			},
			sentence: "its requests arrive on v-client, which is not a provisioning interface",
			next:     "add v-client to provisioning.interfaces",
			evidence: "is not a provisioning interface",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.config)
			if c.dnsmasq != nil {
				otherServer(t, c.dnsmasq...)
			}
			c.play(t, client(t))
			d := s.why(t, string(clientMAC), c.sentence, c.next)
			var found bool
			for _, e := range d.Evidence {
				found = found || strings.Contains(e.Text, c.evidence)
			}
			if !found {
				t.Errorf("no evidence has %q: %+v", c.evidence, d.Evidence)
			}
		})
	}
}

// A machine is on, as its BMC says, and sends nothing.
func TestWhyNothingIsSeen(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	s.bmc.Set(true)
	address := "192.0.2.51"
	if _, err := s.engine.AddMachine(t.Context(), "test",
		deploy.NewMachine{
			Name: "m1", MACs: []inventory.MAC{clientMAC},
			BMC: deploy.BMCEdit{Address: &address},
		}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine.PowerStatus(t.Context(), "m1"); err != nil {
		t.Fatal(err)
	}
	s.why(t, "m1", "its BMC says that it is on", "is network boot first")
}
