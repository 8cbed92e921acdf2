package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/store"
)

const importJobEnv = "PXECTL_BENCH_IMPORT"

func importBenchmarks() []benchmark {
	return []benchmark{
		{
			name: "import", peer: "zstd -3 -T0", needs: []string{"zstd"},
			rows: []row{
				{
					"import-raw", "MB/s",
					"the appliance's code imports a raw file of 4 GiB with 1.2 GiB of data in it: compressed in chunks that can be fetched alone, every one hashed packed and unpacked, looked into, and on the medium; the peer compresses the file and does not wait for the disk", atLeastPeer(1),
				},
				{"import-raw-cpu", "s", "CPU time that it used for it", atMostPeer(1)},
				{"import-memory", "MB", "the most memory that the importing process had", atMost(100)},
			},
			start: func(b *bench) (ours, peer func() []float64) {
				file := filepath.Join(b.dir, "os.raw")
				f, err := os.Create(file)
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				if err := makeImage(f, 0); err != nil {
					b.Fatal(err)
				}
				speed := func(took time.Duration) float64 {
					return imageChunks * images.ChunkSize / 1e6 / took.Seconds()
				}
				timed := func(cmd *exec.Cmd) []float64 {
					start := time.Now()
					b.run(cmd)
					took := time.Since(start)
					return []float64{speed(took), usage(cmd), peakMemory(cmd) / 1e6}
				}
				return func() []float64 {
						self, err := os.Executable()
						if err != nil {
							b.Fatal(err)
						}
						dir, err := os.MkdirTemp(b.dir, "store")
						if err != nil {
							b.Fatal(err)
						}
						defer os.RemoveAll(dir)
						cmd := exec.Command(self, file, dir)
						cmd.Env = append(os.Environ(), importJobEnv+"=1")
						return timed(cmd)
					}, func() []float64 {
						return timed(exec.Command("zstd", "-q", "-3", "-T0", "-f", file, "-o",
							filepath.Join(b.dir, "os.raw.zst")))
					}
			},
		},
	}
}

// peakMemory is the peak of a finished program's resident memory.
func peakMemory(cmd *exec.Cmd) float64 {
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024
}

// importAsAppliance runs in a child process: it imports the file of its first argument into the directory of
// its second.
func importAsAppliance(string) {
	err := func() error {
		s, err := store.Open(os.Args[2], slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer s.Close()
		f, err := os.Open(os.Args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = s.Import(context.Background(), f, store.ImportOptions{
			Force: true, Name: "os", Format: "raw",
		})
		return err
	}()
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}
