package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// DHCP leases: perfdhcp stands for a relay behind which 20,000 machines ask for an address, at a rate that is raised
// until one in a hundred packets is lost. Every server begins without leases, has the same pool and writes its
// leases to the disk as it does by itself: ours with an fsync before each ACK, Kea's memfile and dnsmasq
// without any.
const (
	leasePool    = "10.90.64.0-10.90.191.255"
	leaseClients = 20000
	leaseSeconds = 3
	leaseRaise   = 1.25
	leaseFirst   = 2000 // exchanges a second; for dnsmasq a twentieth
	leaseConfig  = `dhcp:
  mode: server
  server:
    lease_time: 1h
    unknown_share: 100
    subnets: [{subnet: 10.90.0.0/16, pools: [` + leasePool + `]}]
log: {level: warn}
`
)

func init() {
	for _, c := range []struct {
		name, peer, program string
		ratio               float64
	}{
		{"dhcp-kea", "kea-dhcp4", "kea-dhcp4", 1},
		{"dhcp-dnsmasq", "dnsmasq", "dnsmasq", 10},
	} {
		register(benchmark{
			name: c.name, peer: c.peer, needs: []string{"ip", "perfdhcp", c.program},
			rows: []row{{c.name, "/s", "DHCP exchanges of four packets, leases on the disk, at less than 1 % drops", atLeastPeer(c.ratio)}},
			start: func(b *bench) (ours, peer func() []float64) {
				net := network(b)
				first := float64(leaseFirst)
				servers := map[string]func() server{
					"kea-dhcp4": func() server { return kea(b, net.peer) },
					"dnsmasq":   func() server { return dnsmasq(b, net.peer) },
				}
				side := func(ip string, first float64, start func() server) func() []float64 {
					rate := first
					return func() []float64 {
						s := start()
						defer s.stop()
						best, last := mostLeases(b, net.client, ip, rate)
						rate = last
						return []float64{best}
					}
				}
				if c.peer == "dnsmasq" {
					first /= 20
				}
				return side(oursIP, leaseFirst, func() server { return oursFromNothing(b, net.ours) }), side(peerIP, first, servers[c.peer])
			},
		})
	}
	register(benchmark{
		name: "dhcp-proxy", needs: []string{"ip", "taskset"},
		rows:  []row{{"dhcp-proxy", "/s", "offers to network boot clients beside another DHCP server, for each second of CPU time, bound to one core", atLeast(20000)}},
		start: proxyAnswers,
	})
}

func oursFromNothing(b *bench, on testnet.Host) server {
	for _, file := range []string{"leases", "pxectl.db"} {
		if err := os.RemoveAll(filepath.Join(b.dir, "data", file)); err != nil {
			b.Fatal(err)
		}
	}
	return b.appliance(on, leaseConfig)
}

func kea(b *bench, on testnet.Host) server {
	leases := filepath.Join(b.dir, "kea.csv")
	config := filepath.Join(b.dir, "kea.json")
	os.Remove(leases)
	text := fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": ["eth0/%s"], "dhcp-socket-type": "udp"},
"lease-database": {"type": "memfile", "persist": true, "name": %q}, "valid-lifetime": 3600,
"multi-threading": {"enable-multi-threading": true},
"subnet4": [{"subnet": "10.90.0.0/16", "pools": [{"pool": %q}]}],
"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]},
{"name": "kea-dhcp4.leases", "severity": "WARN", "output_options": [{"output": "stdout"}]},
{"name": "kea-dhcp4.alloc-engine", "severity": "ERROR", "output_options": [{"output": "stdout"}]}]}}`, peerIP, leases, leasePool)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := on.Command("kea-dhcp4", "-c", config)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+b.dir, "KEA_LOCKFILE_DIR="+b.dir)
	s := b.spawn(cmd)
	b.await(s, "kea-dhcp4", func() bool { return said(s, "DHCP4_STARTED") })
	return s
}

func dnsmasq(b *bench, on testnet.Host) server {
	leases := filepath.Join(b.dir, "dnsmasq.leases")
	os.Remove(leases)
	s := b.spawn(on.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--no-ping", "--user=root", "--quiet-dhcp",
		"--dhcp-authoritative", "--dhcp-lease-max=100000", "--dhcp-leasefile="+leases, "--dhcp-range="+strings.ReplaceAll(leasePool, "-", ",")+",1h"))
	b.await(s, "dnsmasq", func() bool { return said(s, "DHCP, IP range") })
	return s
}

func said(s server, text string) bool {
	raw, _ := os.ReadFile(s.log)
	return strings.Contains(string(raw), text)
}

// mostLeases is the highest rate of exchanges that the server keeps up with, and the rate to begin with next time.
func mostLeases(b *bench, client testnet.Host, ip string, rate float64) (best, last float64) {
	for {
		got, ok := exchanges(b, client, ip, rate)
		if ok {
			best = got
			break
		}
		if rate /= leaseRaise; rate < 1 {
			b.Fatalf("%s loses packets at one exchange a second", ip)
		}
	}
	for {
		got, ok := exchanges(b, client, ip, rate*leaseRaise)
		if !ok || got <= best { // perfdhcp itself may be at its end
			return best, rate
		}
		best, rate = got, rate*leaseRaise
	}
}

var perfdhcpCounts = regexp.MustCompile(`sent packets: (\d+)\s+received packets: (\d+)\s+drops: (\d+)`)

// exchanges has perfdhcp ask at a rate; ok says that less than 1 % of either kind of answer is missing.
func exchanges(b *bench, client testnet.Host, ip string, rate float64) (perSecond float64, ok bool) {
	cmd := client.Command("perfdhcp", "-4", "-l", "eth0", "-r", strconv.Itoa(max(int(rate), 1)), "-R", strconv.Itoa(leaseClients),
		"-p", strconv.Itoa(leaseSeconds), "-W", "1000000", ip)
	out, _ := cmd.CombinedOutput() // exit code 3: packets were lost
	counts := perfdhcpCounts.FindAllStringSubmatch(string(out), -1)
	if len(counts) != 2 {
		b.Fatalf("perfdhcp says\n%s", out)
	}
	ok = true
	for _, c := range counts {
		sent, _ := strconv.ParseFloat(c[1], 64)
		received, _ := strconv.ParseFloat(c[2], 64)
		ok = ok && sent > 0 && sent-received < sent/100
		perSecond = received / leaseSeconds
	}
	return perSecond, ok
}

// proxyAnswers binds a running appliance to one core and asks it from another one. It counts answers for each second
// that the appliance ran, timeline and all, so that what else the machine does in the meantime changes little.
func proxyAnswers(b *bench) (ours, peer func() []float64) {
	hosts := network(b)
	s := b.appliance(hosts.ours, "log: {level: warn}\n")
	for _, pid := range s.group() {
		b.run(hosts.ours.Command("taskset", "-a", "-c", "-p", "0", strconv.Itoa(pid)))
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return func() []float64 {
		before := s.cpu()
		out := b.run(hosts.client.Command("taskset", "-c", "1", self, proxyCommand))
		answers, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if err != nil {
			b.Fatalf("the client says %q", out)
		}
		return []float64{answers / (s.cpu() - before).Seconds()}
	}, nil
}

const (
	proxyCommand = "dhcp-proxy-client"
	proxyFor     = 3 * time.Second
	proxyAtOnce  = 256 // questions that wait for their answers
)

// proxyMain stands for a relay and asks as UEFI firmware does, for one machine after another. It prints how many
// answers came.
func proxyMain() error {
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(clientIP), Port: 67}, &net.UDPAddr{IP: net.ParseIP(oursIP), Port: 67})
	if err != nil {
		return err
	}
	defer conn.Close()
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 0}), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.ParseIP(clientIP)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(93), []byte{0, 7}), dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(97), make([]byte, 17)))
	if err != nil {
		return err
	}
	question := p.ToBytes()
	asked := make(chan struct{}, proxyAtOnce)
	ctx, cancel := context.WithTimeout(context.Background(), proxyFor)
	defer cancel()
	go func() {
		for n := uint32(0); ctx.Err() == nil; n++ {
			select {
			case asked <- struct{}{}:
			case <-time.After(100 * time.Millisecond): // lost; ask on
			}
			binary.BigEndian.PutUint32(question[4:], n)         // xid
			binary.BigEndian.PutUint32(question[28+2:], n%2000) // chaddr
			if _, err := conn.Write(question); err != nil {
				return
			}
		}
	}()
	var answers int
	buf := make([]byte, 1500)
	_ = conn.SetReadDeadline(time.Now().Add(proxyFor))
	for ctx.Err() == nil {
		if _, err := conn.Read(buf); err != nil {
			break
		}
		answers++
		select {
		case <-asked:
		default:
		}
	}
	fmt.Println(answers)
	return nil
}
