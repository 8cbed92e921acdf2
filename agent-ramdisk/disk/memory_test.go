package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
)

// TestMemory reads the manifest of the largest possible image and writes that image, with incompressible
// chunks, in a process of its own, and checks the peak of its memory.
func TestMemory(t *testing.T) {
	testnet.Long(t)
	if dir := os.Getenv("PXECTL_MEMORY_TEST"); dir != "" {
		writeLarge(t, dir)
		return
	}
	if race {
		t.Skip("the race detector keeps several bytes for each byte of memory; run it without -race")
	}
	dir := t.TempDir()
	makeLarge(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "PXECTL_MEMORY_TEST="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, text, _ := strings.Cut(string(out), "grew by ")
	text, _, _ = strings.Cut(text, " KiB")
	kib, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("no figure in %s", out)
	}
	t.Logf("the write took %d KiB", kib)
	if kib > 64<<10 || kib < 16<<10 {
		t.Errorf("the write took %d KiB, want at most 65536, and what its buffers take at least", kib)
	}
}

// makeLarge makes the manifest: mostly zeros, as in large images, and noise between them.
func makeLarge(t *testing.T, dir string) {
	t.Helper()
	m, data := pack(t, append(noise(images.ChunkSize), make([]byte, images.ChunkSize)...))
	chunks := make(images.Chunks, images.MaxRawSize/images.ChunkSize)
	var offset int64
	for i := range chunks {
		chunks[i] = m.Chunks[1]
		if i%1024 == 0 {
			chunks[i] = m.Chunks[0]
		}
		chunks[i].Offset = offset
		offset += chunks[i].Length
	}
	large := *m
	large.RawSize, large.Chunks = int64(len(chunks))*images.ChunkSize, chunks
	large.DataSize = offset + int64(len(images.SeekTable(chunks)))
	encoded, err := large.Encode()
	if err != nil {
		t.Fatal(err)
	}
	frames, err := json.Marshal([][]byte{
		data[:m.Chunks[0].Length], data[m.Chunks[1].Offset:][:m.Chunks[1].Length],
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"manifest": encoded, "frames": frames, "disk": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "disk"), large.RawSize); err != nil {
		t.Fatal(err)
	}
}

func writeLarge(t *testing.T, dir string) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	debug.SetMemoryLimit(48 << 20) // as the agent does
	before := peak(t)
	f, err := os.Open(filepath.Join(dir, "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, _, err := images.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	if err := json.Unmarshal(read("frames"), &frames); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(dir, "disk"))
	w, err := d.Write(context.Background(), Write{
		Manifest: m,
		Zeros:    true,
		HashOnly: true,
		Fetch: func(_ context.Context, dst []byte, _, length int64) ([]byte, error) {
			for _, f := range frames {
				if int64(len(f)) == length {
					return append(dst[:0], f...), nil
				}
			}
			panic("no such frame")
		},
	})
	if err != nil || w.Fetched != len(m.Chunks)/1024 {
		t.Fatalf("Write = %+v, %v", w, err)
	}
	t.Logf("grew by %d KiB", peak(t)-before)
}

// peak is the peak of this process's resident memory, in KiB.
func peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if f := strings.Fields(string(line)); f[0] == "VmHWM:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}

// noise cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, 0, n)
	for h := images.HashChunk([]byte("noise")); len(b) < n; h = images.HashChunk(h[:]) {
		b = append(b, h[:]...)
	}
	return b[:n]
}
