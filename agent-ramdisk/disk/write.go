package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"
	"golang.org/x/sync/errgroup"
)

// A Write is an image on its way to a disk.
type Write struct {
	Manifest *images.Manifest
	// Fetch reads a range of disk.zst into dst and retries what is worth it: images.Fetcher.Fetch.
	Fetch func(ctx context.Context, dst []byte, offset, length int64) ([]byte, error)
	// Zeros: the disk is known to read zeros where nothing is written.
	Zeros bool
	// Progress, if set, is called now and then, from one goroutine at a time.
	Progress func(inventory.Progress)
}

const (
	// workers fetch, decode and write at once. Each holds a frame and a chunk: 8 MiB.
	workers = 4
	// wrongTries is how often a chunk that differs from the manifest is fetched again.
	wrongTries = 4
)

// job is one run of a Write.
type job struct {
	Write
	d     *Device
	sums  []uint64 // of what was written, by chunk
	wrote atomic.Uint64
	sent  atomic.Uint64

	mu    sync.Mutex
	phase string
	done  uint64
}

// Write writes the image, flushes, and reads every chunk back from the medium. When it fails,
// it clears the labels again, so that no half a system boots.
func (d *Device) Write(ctx context.Context, w Write) (_ *inventory.Written, err error) {
	m := w.Manifest
	switch {
	case m.SectorSize != d.Sector:
		return nil, fmt.Errorf("%s has sectors of %d bytes, image %s is made for %d", d.Name, d.Sector, m.Name, m.SectorSize)
	case m.RawSize > d.Size:
		return nil, fmt.Errorf("%s holds %d bytes, image %s needs %d", d.Name, d.Size, m.Name, m.RawSize)
	}
	defer func() {
		if err != nil {
			if e := d.WipeLabels(); e != nil {
				err = fmt.Errorf("%w; and its labels could not be cleared: %w", err, e)
			}
		}
	}()
	j := &job{Write: w, d: d, sums: make([]uint64, len(m.Chunks))}
	start := time.Now()
	if err := j.each(ctx, "write", j.writeChunk); err != nil {
		return nil, err
	}
	if err := d.Flush(); err != nil {
		return nil, err
	}
	written := time.Now()
	if err := j.each(ctx, "read-back", j.readBack); err != nil {
		return nil, err
	}
	return &inventory.Written{
		Bytes: uint64(m.RawSize), Wrote: j.wrote.Load(), Sent: j.sent.Load(),
		Chunks: len(m.Chunks), ReadBack: len(m.Chunks),
		WriteMS: written.Sub(start).Milliseconds(), ReadBackMS: time.Since(written).Milliseconds(),
	}, nil
}

// hands are what a worker works with.
type hands struct {
	raw, frame []byte
	decoder    *images.Decoder
}

func (j *job) each(ctx context.Context, phase string, do func(context.Context, *hands, images.Chunk) error) error {
	j.mu.Lock()
	j.phase, j.done = phase, 0
	j.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			dec, err := images.NewDecoder()
			if err != nil {
				return err
			}
			h := &hands{raw: Buffer(images.ChunkSize), decoder: dec}
			for {
				i := int(next.Add(1)) - 1
				if i >= len(j.Manifest.Chunks) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				c := j.Manifest.Chunks[i]
				if err := do(ctx, h, c); err != nil {
					return err
				}
				j.progress(c)
			}
		})
	}
	return g.Wait()
}

func (j *job) progress(c images.Chunk) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done += uint64(c.RawLength)
	if j.Progress != nil {
		j.Progress(inventory.Progress{Phase: j.phase, Done: j.done, Total: uint64(j.Manifest.RawSize), Sent: j.sent.Load()})
	}
}

func (j *job) writeChunk(ctx context.Context, h *hands, c images.Chunk) error {
	if c.Zero {
		if j.Zeros {
			return nil
		}
		if err := j.d.zero(c.RawOffset, c.RawLength); err != nil {
			return err
		}
		j.wrote.Add(uint64(c.RawLength))
		return nil
	}
	raw, err := j.fetch(ctx, h, c)
	if err != nil {
		return err
	}
	j.sums[c.Index] = images.Quick(raw)
	if err := j.d.WriteDirect(raw, c.RawOffset); err != nil {
		return fmt.Errorf("write chunk %d to %s at %d: %w", c.Index, j.d.Name, c.RawOffset, err)
	}
	j.wrote.Add(uint64(len(raw)))
	return nil
}

// fetch brings one chunk. A wrong one is fetched again a few times: a cache on the way or a bad cable
// may have spoiled it once.
func (j *job) fetch(ctx context.Context, h *hands, c images.Chunk) ([]byte, error) {
	for try := 1; ; try++ {
		frame, err := j.Fetch(ctx, h.frame, c.Offset, c.Length)
		if err != nil {
			return nil, fmt.Errorf("chunk %d of %s: %w", c.Index, j.Manifest.Name, err)
		}
		h.frame = frame[:0]
		j.sent.Add(uint64(len(frame)))
		raw, err := h.decoder.DecodeChunk(h.raw, frame, c)
		if err == nil {
			return raw, nil
		}
		if !errors.Is(err, images.ErrChunk) || try == wrongTries {
			return nil, fmt.Errorf("image %s, fetched %d times: %w", j.Manifest.Name, try, err)
		}
		select {
		case <-time.After(time.Duration(try) * (100*time.Millisecond + rand.N(200*time.Millisecond))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readBack checks a chunk on the medium. One that is wrong is written once more: a disk that said that it reads zeros
// and does not is mended so, and a bad medium shows itself a second time.
func (j *job) readBack(ctx context.Context, h *hands, c images.Chunk) error {
	err := j.check(h, c)
	if !errors.Is(err, images.ErrChunk) {
		return err
	}
	if c.Zero {
		if err := j.d.zero(c.RawOffset, c.RawLength); err != nil {
			return err
		}
		j.wrote.Add(uint64(c.RawLength))
	} else if err := j.writeChunk(ctx, h, c); err != nil {
		return err
	}
	if err := j.d.Flush(); err != nil {
		return err
	}
	if err := j.check(h, c); err != nil {
		return fmt.Errorf("read back from %s, written twice: %w", j.d.Name, err)
	}
	return nil
}

// check reads a chunk from the medium. What was written had been verified, so a quick sum of it is
// enough to see that it arrived: the disk is no adversary.
func (j *job) check(h *hands, c images.Chunk) error {
	raw := h.raw[:c.RawLength]
	if err := j.d.ReadMedium(raw, c.RawOffset); err != nil {
		return fmt.Errorf("read chunk %d back from %s at %d: %w", c.Index, j.d.Name, c.RawOffset, err)
	}
	switch {
	case c.Zero && !images.IsZero(raw):
		return fmt.Errorf("chunk %d at %d: not zero on the medium: %w", c.Index, c.RawOffset, images.ErrChunk)
	case !c.Zero && images.Quick(raw) != j.sums[c.Index]:
		return fmt.Errorf("chunk %d at %d: the medium holds something else: %w", c.Index, c.RawOffset, images.ErrChunk)
	}
	return nil
}
