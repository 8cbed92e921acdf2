package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The boot storm: the rack's power comes back, and 1,000 machines boot at once.
//
// Every client is a goroutine with a MAC and an address of its own that does what UEFI firmware and iPXE do:
// DISCOVER as an Ethernet frame, offer, REQUEST to port 4011, the size of the boot program, the boot program
// over TFTP in lock-step, autoexec.ipxe, then HTTP on one connection each: the boot script, kernel and
// ramdisk. A client asks again for lost packets when firmware would. It is harder than a rack: all clients
// run on the cores of the server, and the wire has no delay and no limited speed that would spread them out.
//
// Three things differ from a rack. Only the DHCP frames have 1,000 MACs: everything else comes from 1,000
// addresses behind one router, as with a relay, since Linux has one MAC an interface. The kernel is 64 KiB,
// and the ramdisk 256 KiB.
const (
	stormClients = 1000
	stormKernel  = 64 << 10
	stormInitrd  = 256 << 10
)

// stormFigures are the clients' results, in JSON: the clients are a process of their own in the client's
// namespace.
type stormFigures struct {
	Failed  []string        // a reason for each client that failed
	Scripts []time.Duration // from request to answer on the wire
	Waited  []time.Duration // from the connection's opening to the script's last byte, as the clients saw it
	Again   int             // DHCP and TFTP packets that clients had to send again
	Took    time.Duration   // until the last client was done
}

func stormBenchmarks() []benchmark {
	return []benchmark{
		{
			name: "boot-storm", needs: []string{"ip"},
			rows: []row{
				{
					name: "boot-storm-failed",
					what: "of 1000 clients that boot at once: those that fail, in the worst storm",
					goal: never(),
				},
				{
					name: "boot-storm-script",
					unit: "ms",
					what: "the 99th percentile of the time from a request for the boot script to its answer, on the wire",
					goal: atMost(250),
				},
				{
					name: "boot-storm-memory",
					unit: "MiB",
					what: "the most that the appliance had resident",
					goal: atMost(256),
				},
				{
					name: "boot-storm-time",
					unit: "s",
					what: "until the last of them has its ramdisk",
					goal: atMost(60),
				},
			},
			start: bootStorm,
		},
	}
}

func bootStorm(b *bench) (ours, peer func() []float64) {
	net := network(b)
	net.client.Run(b, "ip", "route", "add", "local", stormNet, "dev", "lo") // every address in it is the client's own
	net.ours.Run(b, "ip", "route", "add", stormNet, "via", clientIP)
	ramdisk := filepath.Join(b.dir, "data", "ramdisk", "amd64")
	if err := os.MkdirAll(ramdisk, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int{"vmlinuz": stormKernel, "initrd": stormInitrd} {
		if err := os.WriteFile(filepath.Join(ramdisk, name), make([]byte, size), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return func() []float64 {
		// Each storm has a new appliance with an empty store, so that each memory figure is of its own storm.
		if err := os.RemoveAll(filepath.Join(b.dir, "data", "pxectl.db")); err != nil {
			b.Fatal(err)
		}
		appliance := b.appliance(net.ours)
		defer appliance.stop()
		var f stormFigures
		out := b.run(net.client.Command(self, stormCommand))
		if err := json.Unmarshal([]byte(out), &f); err != nil {
			b.Fatalf("the clients' figures: %v", err)
		}
		if len(f.Failed) == 0 && len(f.Scripts) != stormClients {
			b.Fatalf("%d scripts were seen on the wire, want %d", len(f.Scripts), stormClients)
		}
		for i, why := range f.Failed {
			if i < 5 {
				fmt.Fprintln(os.Stderr, "boot-storm: failed:", why)
			}
		}
		fmt.Fprintf(os.Stderr,
			"boot-storm: %v in all, %d packets sent again, appliance used %v CPU, 99%% of the clients had the script within %v\n",
			f.Took.Round(time.Millisecond), f.Again, appliance.cpu().Round(time.Millisecond),
			percentile(f.Waited, 99).Round(time.Millisecond))
		return []float64{
			float64(len(f.Failed)), float64(percentile(f.Scripts, 99)) / 1e6, appliance.peakMemory(),
			f.Took.Seconds(),
		}
	}, nil
}
