package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// DHCP leases: perfdhcp acts as a relay for 20,000 machines that ask for an address. Its rate doubles until
// one in a hundred packets is lost, and is then found by halving. Every server begins without leases, has the
// same pool and writes its leases to the disk in its usual way: ours with an fsync before each ACK, Kea's
// memfile and dnsmasq without one.
const (
	leasePool    = "10.90.64.0-10.90.191.255"
	leaseClients = 20000
	leaseSeconds = 3
	leaseRaise   = 1.25
	leaseHalves  = 3    // halvings after the rate was too high: it is found to within 3 %
	leaseFirst   = 4000 // exchanges a second; for dnsmasq a twentieth
	leaseConfig  = `dhcp:
  mode: server
  server:
    lease_time: 1h
    unknown_share: 100
    subnets: [{subnet: 10.90.0.0/16, pools: [` + leasePool + `]}]
log: {level: warn}
`
)

func dhcpBenchmarks() (all []benchmark) {
	for _, c := range []struct {
		name, peer, program string
		ratio               float64
		more                []row
	}{
		{"dhcp-kea", "kea-dhcp4", "kea-dhcp4", 1, []row{
			{
				"dhcp-kea-cpu", "µs",
				"CPU time, user and system, that the server used for each of them at that rate",
				atMostPeer(1),
			},
		}},
		{"dhcp-dnsmasq", "dnsmasq", "dnsmasq", 10, nil},
	} {
		all = append(all, benchmark{
			name: c.name, peer: c.peer, needs: []string{"ip", "perfdhcp", c.program},
			rows: append([]row{{
				c.name, "/s",
				"DHCP exchanges of four packets, leases on the disk, at less than 1 % drops",
				atLeastPeer(c.ratio),
			}}, c.more...),
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
						best := mostLeases(b, rate, func(rate float64) leaseRun {
							return exchanges(b, s, net.client, ip, rate)
						})
						if best.limited && ip == peerIP { // ours would be a lower bound, and so would the ratio
							b.Fatalf("perfdhcp can ask no more than %.0f times a second, and %s answers that",
								best.done, c.peer)
						}
						rate = best.asked / leaseRaise
						return []float64{best.done, best.cpu}
					}
				}
				if c.peer == "dnsmasq" {
					first /= 20
				}
				return side(oursIP, leaseFirst,
						func() server { return oursFromNothing(b, net.ours) }), side(peerIP, first,
						servers[c.peer])
			},
		})
	}
	all = append(all, benchmark{
		name: "dhcp-proxy", needs: []string{"ip", "taskset"},
		rows: []row{
			{
				"dhcp-proxy", "/s",
				"offers to network boot clients beside another DHCP server, by the clock, from an appliance bound to one core; who asks has another", atLeast(20000),
			},
			{"dhcp-proxy-cpu", "/s", "the same for each second of the appliance's CPU time", atLeast(20000)},
		},
		start: proxyAnswers,
	})
	return all
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
{"name": "kea-dhcp4.alloc-engine", "severity": "ERROR", "output_options": [{"output": "stdout"}]}]}}`, peerIP,
		leases, leasePool)
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
	s := b.spawn(on.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
		"--no-ping", "--user=root", "--quiet-dhcp",
		"--dhcp-authoritative", "--dhcp-lease-max=100000", "--dhcp-leasefile="+leases,
		"--dhcp-range="+strings.ReplaceAll(leasePool, "-", ",")+",1h"))
	b.await(s, "dnsmasq", func() bool { return said(s, "DHCP, IP range") })
	return s
}

func said(s server, text string) bool {
	raw, _ := os.ReadFile(s.log)
	return strings.Contains(string(raw), text)
}

// A leaseRun is the result of one run of perfdhcp.
type leaseRun struct {
	asked float64 // exchanges a second that it was to begin
	done  float64 // exchanges a second that it completed
	cpu   float64 // µs of the server for each exchange
	ok    bool    // less than 1 % of either kind of answer is lost

	limited bool // perfdhcp could not ask faster, so the server may be able to answer more
}

// mostLeases finds the highest rate that the server keeps up with, beginning near one; ask asks at a rate.
func mostLeases(b *bench, near float64, ask func(rate float64) leaseRun) leaseRun {
	best := ask(near)
	for ; !best.ok; best = ask(near) {
		if near /= leaseRaise; near < 1 {
			b.Fatal("it loses packets at one exchange a second")
		}
	}
	step := leaseRaise
	for halves := 0; halves <= leaseHalves && !best.limited; {
		next := ask(best.asked * step)
		if next.ok {
			best = next
		}
		if !next.ok || halves > 0 {
			step = math.Sqrt(step)
			halves++
		}
	}
	return best
}

var perfdhcpCounts = regexp.MustCompile(`sent packets: (\d+)\s+received packets: (\d+)\s+drops: (\d+)`)

// exchanges makes perfdhcp ask at a rate.
func exchanges(b *bench, s server, client testnet.Host, ip string, rate float64) leaseRun {
	before := s.cpu()
	cmd := client.Command("perfdhcp", "-4", "-l", "eth0", "-r", strconv.Itoa(max(int(rate), 1)), "-R",
		strconv.Itoa(leaseClients),
		"-p", strconv.Itoa(leaseSeconds), "-W", "1000000", ip)
	out, _ := cmd.CombinedOutput() // exit code 3: packets were lost
	counts := perfdhcpCounts.FindAllStringSubmatch(string(out), -1)
	if len(counts) != 2 {
		b.Fatalf("perfdhcp says\n%s", out)
	}
	r := leaseRun{asked: rate, ok: true}
	for i, c := range counts {
		sent, _ := strconv.ParseFloat(c[1], 64)
		received, _ := strconv.ParseFloat(c[2], 64)
		r.ok = r.ok && sent > 0 && sent-received < sent/100
		r.done = received / leaseSeconds
		r.cpu = float64((s.cpu() - before).Microseconds()) / max(received, 1)
		r.limited = r.limited || i == 0 && sent < 0.97*math.Floor(rate)*leaseSeconds
	}
	return r
}

// proxyAnswers binds a running appliance to one core and asks it from another one. On a busy machine, the
// number of answers by the clock depends on other programs. The number for each second of the appliance's CPU
// time, timeline and all, hardly does.
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
		return []float64{answers / proxyFor.Seconds(), answers / (s.cpu() - before).Seconds()}
	}, nil
}

const (
	proxyCommand = "dhcp-proxy-client"
	proxyFor     = 3 * time.Second
	proxyAtOnce  = 512 // questions in flight
	proxyBatch   = 64  // packets for each system call
)

// proxyMain acts as a relay and asks as UEFI firmware does, for one machine after another, as fast as answers
// come. It prints the number of answers. perfdhcp is too slow for this: it needs 35 µs of its core for each
// offer, which limits it to 28,000 a second.
func proxyMain() error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(clientIP), Port: 67})
	if err != nil {
		return err
	}
	defer conn.Close()
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 0}),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.ParseIP(clientIP)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(93), []byte{0, 7}),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(97), make([]byte, 17)))
	if err != nil {
		return err
	}
	batches := ipv4.NewPacketConn(conn)
	to := &net.UDPAddr{IP: net.ParseIP(oursIP), Port: 67}
	questions, answers := make([]ipv4.Message, proxyBatch), make([]ipv4.Message, proxyBatch)
	for i := range proxyBatch {
		questions[i] = ipv4.Message{Buffers: [][]byte{p.ToBytes()}, Addr: to}
		answers[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 1500)}}
	}
	var asked uint32
	var answered, waiting int
	for end := time.Now().Add(proxyFor); time.Now().Before(end); {
		if waiting <= proxyAtOnce-proxyBatch {
			for _, q := range questions {
				binary.BigEndian.PutUint32(q.Buffers[0][4:], asked)         // xid
				binary.BigEndian.PutUint32(q.Buffers[0][28+2:], asked%2000) // chaddr
				asked++
			}
			n, err := batches.WriteBatch(questions, 0)
			if err != nil {
				return err
			}
			waiting += n
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := batches.ReadBatch(answers, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			waiting = 0 // lost: ask on
			continue
		}
		if err != nil {
			return err
		}
		answered += n
		waiting = max(waiting-n, 0)
	}
	fmt.Println(answered)
	return nil
}
