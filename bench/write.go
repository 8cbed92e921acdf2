package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

// The image: 1024 chunks, of which 308 hold data that compresses to about half.
const (
	imageChunks = 1024
	// changedChunks is the number of chunks that differ in the newer version of the image: 2 %.
	changedChunks = imageChunks * 2 / 100
)

func writeBenchmarks() []benchmark {
	needs := []string{"ip", "losetup", "blkdiscard", "curl", "zstd", "dd"}
	return []benchmark{
		{
			name: "write", peer: "curl, zstd and dd", needs: needs,
			rows: []row{
				{
					"write-full", "MB/s",
					"the agent's code discards a loop device and writes an image of 4 GiB with 1.2 GiB of data, every chunk verified on arrival; the peer writes it with O_DIRECT and fsync and verifies nothing", atLeastPeer(3),
				},
				{
					"write-full-cpu", "s", "CPU time, user and system, that the writing side used for it",
					atMostPeer(1.3),
				},
			},
			start: func(b *bench) (ours, peer func() []float64) {
				w := newWriteBench(b)
				return func() []float64 {
						w.blank()
						r := w.agent(w.first, inventory.ModeFull, inventory.VerifyHash)
						return []float64{w.speed(r.seconds), r.cpu}
					}, func() []float64 {
						w.blank()
						took, cpu := w.pipeline()
						return []float64{w.speed(took), cpu}
					}
			},
		},
		{
			name: "write-proved", peer: "curl, zstd and dd", needs: needs,
			rows: []row{
				{
					"write-proved", "MB/s",
					"the same with every chunk read back from the medium and compared, the default; the peer still verifies nothing", atLeastPeer(1),
				},
			},
			start: func(b *bench) (ours, peer func() []float64) {
				w := newWriteBench(b)
				return func() []float64 {
						w.blank()
						return []float64{
							w.speed(w.agent(w.first, inventory.ModeFull, inventory.VerifyReadBack).seconds),
						}
					}, func() []float64 {
						w.blank()
						took, _ := w.pipeline()
						return []float64{w.speed(took)}
					}
			},
		},
		{
			name: "delta", peer: "a full write", needs: needs,
			rows: []row{
				{
					"write-delta", "s",
					"a newer version of that image, 2 % of its chunks changed, over the older one, read back; the peer is the full write of it, read back", atMostPeer(1.0 / 3),
				},
				{
					"write-delta-sent", "MB",
					"bytes that were sent for it; the peer is the compressed size of the changed chunks",
					atMostPeer(1.1),
				},
			},
			start: func(b *bench) (ours, peer func() []float64) {
				w := newWriteBench(b)
				newer := w.add("newer", changedChunks)
				changed := float64(newer.since(w.first))
				return func() []float64 {
						w.agent(w.first, inventory.ModeFull, inventory.VerifyHash)
						r := w.agent(newer, inventory.ModeAuto, inventory.VerifyReadBack)
						return []float64{r.seconds, float64(r.Written.Sent) / 1e6}
					}, func() []float64 {
						w.blank()
						r := w.agent(newer, inventory.ModeFull, inventory.VerifyReadBack)
						return []float64{r.seconds, changed / 1e6}
					}
			},
		},
	}
}

// A writeBench has an appliance that serves images, and a loop device for them.
type writeBench struct {
	*bench
	net    hosts
	dev    string
	first  storedImage
	served bool
}

type storedImage struct {
	id, manifest string
	chunks       images.Chunks
}

// since is the compressed size of the chunks that differ from an older image's.
func (s storedImage) since(old storedImage) (n int64) {
	for i, c := range s.chunks {
		if c.Hash != old.chunks[i].Hash {
			n += c.Length
		}
	}
	return n
}

func newWriteBench(b *bench) *writeBench {
	w := &writeBench{bench: b, net: network(b)}
	file := filepath.Join(b.dir, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(file, (imageChunks+16)*images.ChunkSize); err != nil {
		b.Fatal(err)
	}
	w.dev = strings.TrimSpace(b.run(exec.Command("losetup", "--find", "--show", "--direct-io=on", file)))
	b.Cleanup(func() { _ = exec.Command("losetup", "-d", w.dev).Run() })
	w.first = w.add("first", 0)
	return w
}

// add imports an image, the first one with this many chunks changed, and serves it.
func (w *writeBench) add(name string, changed int) storedImage {
	s, err := store.Open(filepath.Join(w.dir, "data", "images"), slog.New(slog.DiscardHandler))
	if err != nil {
		w.Fatal(err)
	}
	defer s.Close()
	r, out := io.Pipe()
	go func() { out.CloseWithError(makeImage(out, changed)) }()
	info, err := s.Import(context.Background(), r, store.ImportOptions{
		Force: true, Name: name, Format: "raw",
	})
	if err != nil {
		w.Fatal(err)
	}
	raw, m, err := s.Manifest(info.ID)
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.dir, name+".json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.Fatal(err)
	}
	return storedImage{info.ID, path, m.Chunks}
}

// makeImage writes an image in which three chunks of ten hold data, half noise and half words.
func makeImage(out io.Writer, changed int) error {
	words := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog 0123456789abcdef\n"), 40)
	zeros := make([]byte, images.ChunkSize)
	chunk := make([]byte, images.ChunkSize)
	for i := range imageChunks {
		data := zeros
		if i%10 < 3 || i == imageChunks-1 {
			seed := [32]byte{byte(i), byte(i >> 8)}
			if i%10 == 1 && i/10 < changed {
				seed[2] = 1
			}
			noise := rand.NewChaCha8(seed)
			for b := chunk; len(b) > 0; b = b[4096:] {
				_, _ = noise.Read(b[:2048])
				copy(b[2048:4096], words)
			}
			data = chunk
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func (w *writeBench) speed(seconds float64) float64 {
	return imageChunks * images.ChunkSize / 1e6 / seconds
}

// serve starts the appliance when all images are there.
func (w *writeBench) serve() {
	if !w.served {
		w.appliance(w.net.ours)
		w.served = true
	}
}

func (w *writeBench) url(id string) string {
	return fmt.Sprintf("http://%s:%d/images/%s/disk.zst", oursIP, httpPort, id)
}

func (w *writeBench) blank() { w.run(exec.Command("blkdiscard", "-f", w.dev)) }

// pipeline writes the first image as a shell would.
func (w *writeBench) pipeline() (seconds, cpu float64) {
	w.serve()
	cmd := w.net.client.Command("bash", "-c",
		fmt.Sprintf("set -o pipefail; curl -sS --fail %s | zstd -dc | dd of=%s bs=4M iflag=fullblock oflag=direct conv=fsync status=none",
			w.url(w.first.id), w.dev))
	start := time.Now()
	w.run(cmd)
	return time.Since(start).Seconds(), usage(cmd)
}

// usage is the CPU time of a finished program and its children.
func usage(cmd *exec.Cmd) float64 {
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
}

const writeJobEnv = "PXECTL_BENCH_WRITE"

// A writeJob is the agent's task.
type writeJob struct{ URL, ID, Manifest, Dev, Mode, Verify string }

type agentRun struct {
	seconds, cpu float64
	Written      inventory.Written
}

// agent writes an image with the agent's code, from discarding to the last flush, in a process of its own.
func (w *writeBench) agent(img storedImage, mode, verify string) agentRun {
	w.serve()
	job, err := json.Marshal(writeJob{w.url(img.id), img.id, img.manifest, w.dev, mode, verify})
	if err != nil {
		w.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	cmd := w.net.client.Command(self)
	cmd.Env = append(os.Environ(), writeJobEnv+"="+string(job))
	start := time.Now()
	out := w.run(cmd)
	r := agentRun{seconds: time.Since(start).Seconds(), cpu: usage(cmd)}
	if err := json.Unmarshal([]byte(out), &r.Written); err != nil {
		w.Fatal(err)
	}
	return r
}

// writeAsAgent does what the agent does for prepare-disk and write-image, and ends the process.
func writeAsAgent(text string) {
	written, err := func() (*inventory.Written, error) {
		var job writeJob
		if err := json.Unmarshal([]byte(text), &job); err != nil {
			return nil, err
		}
		raw, err := os.ReadFile(job.Manifest)
		if err != nil {
			return nil, err
		}
		m, err := images.Parse(raw)
		if err != nil {
			return nil, err
		}
		d, err := disk.OpenDevice(job.Dev)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		var keep int64
		delta := job.Mode == inventory.ModeAuto && d.Resembles(m)
		if delta {
			keep = m.RawSize
		}
		p, err := d.Prepare(keep)
		if err != nil {
			return nil, err
		}
		f := images.Fetcher{
			Client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}},
			URL:    job.URL,
			ID:     job.ID,
		}
		return d.Write(context.Background(), disk.Write{
			Manifest: m, Fetch: f.Fetch, Zeros: p.Zeros, Delta: delta,
			HashOnly: job.Verify == inventory.VerifyHash,
		})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(written)
	os.Exit(0)
}
