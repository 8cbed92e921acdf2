package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/ipxe"
)

// TFTP: loads of network boot programs as firmware does them, one after another, from a running appliance and
// from a tftpd-hpa with the same file. Each load is a transfer of its own.
const tftpLoads = 64

func tftpBenchmarks() (all []benchmark) {
	for _, c := range []struct {
		name, what string
		clients    int
	}{
		{"tftp-1", "one curl, blksize 1468, 64 boot programs of 1012 kB in a row", 1},
		{"tftp-16", "16 curls at once, blksize 1468, 64 boot programs of 1012 kB in all", 16},
	} {
		all = append(all, benchmark{
			name: c.name, peer: "tftpd-hpa", needs: []string{"ip", "curl", "in.tftpd"},
			rows:  []row{{c.name, "MB/s", c.what, atLeastPeer(1)}},
			start: func(b *bench) (ours, peer func() []float64) { return tftp(b, c.clients) },
		})
	}
	return all
}

func tftp(b *bench, clients int) (ours, peer func() []float64) {
	net := network(b)
	b.appliance(net.ours)
	root := filepath.Join(b.dir, "tftp")
	program, _ := ipxe.NBP(ipxe.ARM64)
	if err := os.MkdirAll(root, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, ipxe.ARM64), program, 0o644); err != nil {
		b.Fatal(err)
	}
	// mkdtemp's directory is for root alone, and tftpd-hpa becomes nobody.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		b.Fatal(err)
	}
	b.await(b.spawn(net.peer.Command("in.tftpd", "--foreground", "--address", peerIP+":69", "--secure",
		root)), "in.tftpd", func() bool {
		return net.client.Command("curl", "-s", "--max-time", "1", "-o", "/dev/null",
			"tftp://"+peerIP+"/"+ipxe.ARM64).Run() == nil
	})
	load := func(ip string) func() []float64 {
		return func() []float64 { return []float64{loadAll(b, net.client, ip, clients, len(program))} }
	}
	return load(oursIP), load(peerIP)
}

// loadAll is the throughput of all loads together, in MB/s.
func loadAll(b *bench, client testnet.Host, ip string, clients, size int) float64 {
	each := tftpLoads / clients
	var cmds []*exec.Cmd
	for range clients {
		args := []string{"-sS", "--fail-early", "--tftp-blksize", "1468"}
		for range each {
			args = append(args, "-o", "/dev/null", "-w", "%{size_download}\n", "tftp://"+ip+"/"+ipxe.ARM64)
		}
		cmds = append(cmds, client.Command("curl", args...))
	}
	errs := make([]error, clients)
	got := make([][]byte, clients)
	start := time.Now()
	var all sync.WaitGroup
	for i, cmd := range cmds {
		all.Go(func() { got[i], errs[i] = cmd.Output() })
	}
	all.Wait()
	took := time.Since(start)
	for i := range cmds {
		want := ""
		for range each {
			want += fmt.Sprintln(size)
		}
		if errs[i] != nil || string(got[i]) != want {
			b.Fatalf("curl from %s: %v, loaded sizes %q, want %d each", ip, errs[i], got[i], size)
		}
	}
	return float64(tftpLoads*size) / 1e6 / took.Seconds()
}
