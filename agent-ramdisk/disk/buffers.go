package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/sleep"
)

const (
	// frameSize holds any frame: zstd makes incompressible data a little larger.
	frameSize = images.ChunkSize + images.ChunkSize/64
	// wrongTries is how often a chunk that differs from the manifest is fetched again.
	wrongTries = 4
)

// workerBuffers are the buffers into which one worker fetches and decodes: at most 8 MiB. They are most of
// the memory that a write takes, whatever the image. They lie outside of the heap, which the collector would
// let grow to twice their size.
type workerBuffers struct {
	raw, frame []byte
	memory     []byte
	decoder    *images.Decoder
}

// workers is how many fetch, decode and write at once. They are more than the cores: while one waits for the
// disk or the network, another has work. Together they take at most 64 MiB: the manifest of an image of 1 TiB
// takes half of that by itself.
func workers(chunks int) int {
	const (
		most, least = 6, 2
		room        = 56 << 20
		perChunk    = int(unsafe.Sizeof(images.Chunk{})) + 16
		perWorker   = images.ChunkSize + frameSize
	)
	return min(max((room-chunks*perChunk)/perWorker, least), most, chunks)
}

// allocBuffers allocates the buffers of n workers.
func (j *job) allocBuffers(n int) error {
	debug.FreeOSMemory() // free the manifest's text and its parser's memory
	for range n {
		dec, err := images.NewDecoder()
		if err != nil {
			return err
		}
		m, err := unix.Mmap(-1, 0, images.ChunkSize+frameSize, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return fmt.Errorf("memory for writing: %w", err)
		}
		// Direct I/O pins every page; it is slower without pages of 2 MiB.
		_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
		j.buffers = append(j.buffers, &workerBuffers{
			m[:images.ChunkSize:images.ChunkSize], m[images.ChunkSize:], m, dec,
		})
	}
	return nil
}

// freeBuffers gives the memory back.
func (j *job) freeBuffers() {
	for _, h := range j.buffers {
		_ = unix.Munmap(h.memory)
	}
}

// fetch fetches one chunk. It fetches a wrong one again a few times: a cache on the way or a bad cable may
// have damaged it once.
func (j *job) fetch(ctx context.Context, h *workerBuffers, c images.Chunk) ([]byte, error) {
	for try := 1; ; try++ {
		frame, err := j.Fetch(ctx, h.frame, c.Offset, c.Length)
		if err != nil {
			return nil, fmt.Errorf("chunk %d of %s: %w", c.Index, j.Manifest.Name, err)
		}
		j.sent.Add(uint64(len(frame)))
		raw, err := h.decoder.DecodeChunk(h.raw, frame, c)
		if err == nil {
			return raw, nil
		}
		if !errors.Is(err, images.ErrChunk) || try == wrongTries {
			return nil, fmt.Errorf("image %s, fetched %d times: %w", j.Manifest.Name, try, err)
		}
		if err := sleep.For(ctx,
			time.Duration(try)*(100*time.Millisecond+rand.N(200*time.Millisecond))); err != nil {
			return nil, err
		}
	}
}
