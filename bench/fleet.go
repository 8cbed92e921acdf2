package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/testnet"
)

const (
	fleetCommand = "fleet-agent" // as the first argument, it makes this program an agent
	fleetJobEnv  = "PXECTL_BENCH_FLEET"
	fleetAgents  = 10
	fleetWorkers = 6   // of each agent, as in agent-ramdisk/disk
	fleetChunks  = 160 // of the image, 640 MiB, half of which is noise; none are zeros, which only agents skip
)

func fleetBenchmarks() []benchmark {
	return []benchmark{
		{
			name: "fleet", peer: "nginx, ten curls", needs: []string{"ip", "curl", "nginx", "zstd"},
			rows: []row{
				{
					"fleet-fetch", "MB/s",
					"ten clients fetch one image from a running appliance as ten agents do, chunk by chunk and six at a time, and look at none of it; bytes on the wire, until the last has all", atLeastPeer(0.9),
				},
				{
					"fleet-agents", "MB/s",
					"the same with every chunk verified and unpacked by the agents' code, on the same cores as the server, and nothing written; each of the ten curls feeds a zstd -dc, which verifies nothing", atLeastPeer(0.9),
				},
			},
			start: func(b *bench) (ours, peer func() []float64) {
				hosts := network(b)
				f := newFleet(b, hosts)
				b.appliance(hosts.ours)
				nginx(b, hosts, filepath.Dir(f.data), filepath.Base(f.data))
				return func() []float64 { return []float64{f.agents(false), f.agents(true)} },
					func() []float64 { return []float64{f.curls(), f.curls("zstd", "-dcq")} }
			},
		},
	}
}

// A fleet is ten machines, each with an address of its own, that fetch the same image.
type fleet struct {
	*bench
	on       testnet.Host
	id, data string // of the image, and the path of its disk.zst
	manifest string // a file
	size     int64  // of disk.zst
	fetched  int64  // bytes of its chunks, which an agent fetches
}

func newFleet(b *bench, hosts hosts) *fleet {
	s, err := store.Open(filepath.Join(b.dir, "data", "images"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r, out := io.Pipe()
	go func() { out.CloseWithError(makeFleetImage(out)) }()
	info, err := s.Import(context.Background(), r, store.ImportOptions{
		Force: true, Name: "fleet", Format: "raw",
	})
	if err != nil {
		b.Fatal(err)
	}
	raw, m, err := s.Manifest(info.ID)
	if err != nil {
		b.Fatal(err)
	}
	f := &fleet{
		bench: b, on: hosts.client, id: info.ID, data: s.DataPath(info.ID),
		manifest: filepath.Join(b.dir, "fleet.json"),
	}
	if err := os.WriteFile(f.manifest, raw, 0o600); err != nil {
		b.Fatal(err)
	}
	stored, err := os.Open(f.data)
	if err != nil {
		b.Fatal(err)
	}
	defer stored.Close()
	if f.size, err = io.Copy(io.Discard, stored); err != nil { // this also brings it into the page cache
		b.Fatal(err)
	}
	for _, c := range m.Chunks {
		if !c.Zero { // an agent does not fetch zeros
			f.fetched += c.Length
		}
	}
	for i := range fleetAgents {
		f.on.Run(b, "ip", "addr", "add", fleetAddr(i)+"/16", "dev", "eth0")
	}
	return f
}

func makeFleetImage(out io.Writer) error {
	noise := rand.NewChaCha8([32]byte{})
	words := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog 0123456789abcdef\n"), 40)
	page := make([]byte, 4096)
	copy(page[2048:], words)
	for range fleetChunks * images.ChunkSize / len(page) {
		_, _ = noise.Read(page[:2048])
		if _, err := out.Write(page); err != nil {
			return err
		}
	}
	return nil
}

func fleetAddr(i int) string { return fmt.Sprintf("10.90.1.%d", i+1) }

// A fleetJob is the task of one agent.
type fleetJob struct {
	URL, ID, Manifest, Addr string
	Verify                  bool
}

// agents makes all agents fetch the image at once, and returns the rate on the wire in MB/s.
func (f *fleet) agents(verify bool) float64 {
	self, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	return f.all(f.fetched, func(i int) *exec.Cmd {
		job, err := json.Marshal(fleetJob{
			fmt.Sprintf("http://%s:%d/images/%s/disk.zst", oursIP, httpPort, f.id), f.id, f.manifest,
			fleetAddr(i), verify,
		})
		if err != nil {
			f.Fatal(err)
		}
		cmd := f.on.Command(self, fleetCommand)
		cmd.Env = append(os.Environ(), fleetJobEnv+"="+string(job))
		return cmd
	})
}

// curls makes ten curls fetch it, each of which may pipe into another program.
func (f *fleet) curls(feed ...string) float64 {
	url := fmt.Sprintf("http://%s:%d/%s", peerIP, httpPort, filepath.Base(f.data))
	return f.all(f.size, func(i int) *exec.Cmd {
		curl := []string{
			"curl", "-sS", "--fail", "--interface", fleetAddr(i), "-w", "%{stderr}%{size_download}", url,
			"-o",
		}
		if feed == nil {
			return f.on.Command(curl[0], append(curl[1:], "/dev/null")...)
		}
		return f.on.Command("bash",
			append([]string{
				"-c", `set -o pipefail; "${@:2}" - | $1 >/dev/null`, "bash",
				strings.Join(feed, " "),
			}, curl...)...)
	})
}

// all runs a program for each machine at once. Each prints how many bytes it received, which must be want.
func (f *fleet) all(want int64, program func(i int) *exec.Cmd) float64 {
	var g errgroup.Group
	start := time.Now()
	for i := range fleetAgents {
		cmd := program(i)
		g.Go(func() error {
			out, err := cmd.CombinedOutput()
			if said := strings.TrimSpace(string(out)); err != nil || said != strconv.FormatInt(want, 10) {
				return fmt.Errorf("%s: it says %q, want %d (%v)", strings.Join(cmd.Args, " "), said, want,
					err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		f.Fatal(err)
	}
	return float64(fleetAgents*want) / 1e6 / time.Since(start).Seconds()
}

// fleetMain is one agent: it does what agent-ramdisk/disk does for a write, except for the disk. It prints
// how many bytes it fetched.
func fleetMain() error {
	var job fleetJob
	if err := json.Unmarshal([]byte(os.Getenv(fleetJobEnv)), &job); err != nil {
		return err
	}
	raw, err := os.ReadFile(job.Manifest)
	if err != nil {
		return err
	}
	m, err := images.Parse(raw)
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(job.Addr)}}
	fetcher := images.Fetcher{
		Client: &http.Client{
			Transport: &http.Transport{
				DialContext: dialer.DialContext, MaxIdleConnsPerHost: 8, DisableCompression: true,
			},
		},
		URL: job.URL, ID: job.ID,
	}
	var next, fetched atomic.Int64
	g, ctx := errgroup.WithContext(context.Background())
	for range fleetWorkers {
		g.Go(func() error {
			decoder, err := images.NewDecoder()
			if err != nil {
				return err
			}
			var frame, unpacked []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(m.Chunks) {
					return nil
				}
				c := m.Chunks[i]
				if c.Zero {
					continue
				}
				if frame, err = fetcher.Fetch(ctx, frame, c.Offset, c.Length); err != nil {
					return err
				}
				fetched.Add(c.Length)
				if !job.Verify {
					continue
				}
				if unpacked, err = decoder.DecodeChunk(unpacked, frame, c); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println(fetched.Load())
	return nil
}
