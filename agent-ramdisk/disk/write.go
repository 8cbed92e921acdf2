package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"
)

// A Write writes an image to a disk.
type Write struct {
	Manifest *images.Manifest
	// Fetch reads a range of disk.zst into dst, and retries where that helps: images.Fetcher.Fetch.
	Fetch func(ctx context.Context, dst []byte, offset, length int64) ([]byte, error)
	// Delta compares each chunk with the disk, and fetches only those that differ.
	Delta bool
	// Zeros: the disk reads zeros where nothing is written.
	Zeros bool
	// HashOnly does not read back.
	HashOnly bool
	// Progress, if set, is called now and then, from one goroutine at a time.
	Progress func(inventory.Progress)
}

// job is one run of a Write.
type job struct {
	Write
	d       *Device
	buffers []*workerBuffers
	kept    []bool   // by chunk
	sums    []uint64 // of the written bytes, by chunk

	wrote, sent                 atomic.Uint64
	fetchedCount, zeroedCount   atomic.Int64
	keptCount, verifiedOnMedium atomic.Int64

	mu    sync.Mutex
	phase string
	done  uint64
}

// Fits says why the image does not fit this disk. It changes nothing.
func (d *Device) Fits(m *images.Manifest) error {
	switch {
	case m.SectorSize != d.Sector:
		return fmt.Errorf("%s has sectors of %d bytes, image %s is made for %d", d.Name, d.Sector, m.Name,
			m.SectorSize)
	case m.RawSize > d.Size:
		return fmt.Errorf("%s holds %d bytes, image %s needs %d", d.Name, d.Size, m.Name, m.RawSize)
	}
	return nil
}

// Write writes the image, flushes, and reads every chunk back from the medium, unless it read it there
// before.
//
// It clears the labels first and writes the chunks with the image's own labels last: whenever the write ends,
// by an error or a power cut, no half system boots.
func (d *Device) Write(ctx context.Context, w Write) (_ *inventory.Written, err error) {
	if err := d.Fits(w.Manifest); err != nil {
		return nil, err
	}
	chunks := w.Manifest.Chunks
	j := &job{Write: w, d: d, kept: make([]bool, len(chunks)), sums: make([]uint64, len(chunks))}
	defer j.freeBuffers()
	if err := j.allocBuffers(workers(len(chunks))); err != nil {
		return nil, err
	}
	if err := d.WipeLabels(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if e := d.WipeLabels(); e != nil {
				err = fmt.Errorf("%w; and its labels could not be cleared: %w", err, e)
			}
		}
	}()
	start := time.Now()
	if err := j.write(ctx); err != nil {
		return nil, err
	}
	written := time.Now()
	if !w.HashOnly {
		j.begin("read-back")
		if err := j.forEach(ctx, chunks, j.readBack); err != nil {
			return nil, err
		}
	}
	mode := inventory.ModeFull
	if w.Delta {
		mode = inventory.ModeDelta
	}
	return &inventory.Written{
		Bytes: uint64(w.Manifest.RawSize), Wrote: j.wrote.Load(), Sent: j.sent.Load(), Mode: mode,
		Chunks:   len(chunks),
		Kept:     int(j.keptCount.Load()),
		Fetched:  int(j.fetchedCount.Load()),
		Zeroed:   int(j.zeroedCount.Load()),
		ReadBack: int(j.verifiedOnMedium.Load()),
		WriteMS:  written.Sub(start).Milliseconds(), ReadBackMS: time.Since(written).Milliseconds(),
	}, nil
}

// write writes the middle, then the last chunk, which may hold the backup GPT, then the first.
func (j *job) write(ctx context.Context) error {
	chunks := j.Manifest.Chunks
	last := len(chunks) - 1
	j.begin("write")
	for _, part := range []images.Chunks{chunks[min(1, last):last], chunks[max(1, last):], chunks[:1]} {
		if err := j.forEach(ctx, part, j.putChunk); err != nil {
			return err
		}
		if err := j.d.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) begin(phase string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.phase, j.done = phase, 0
}

// forEach shares the chunks among the workers.
func (j *job) forEach(
	ctx context.Context, chunks images.Chunks, do func(context.Context, *workerBuffers, images.Chunk) error,
) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for _, h := range j.buffers[:min(len(j.buffers), len(chunks))] {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(chunks) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(ctx, h, chunks[i]); err != nil {
					return err
				}
				j.progress(chunks[i])
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
		j.Progress(inventory.Progress{
			Phase: j.phase, Done: j.done, Total: uint64(j.Manifest.RawSize), Sent: j.sent.Load(),
		})
	}
}

// putChunk makes the disk hold a chunk.
func (j *job) putChunk(ctx context.Context, h *workerBuffers, c images.Chunk) error {
	if j.Delta && j.d.holds(h.raw, c) {
		j.kept[c.Index] = true
		j.keptCount.Add(1)
		j.verifiedOnMedium.Add(1)
		return nil
	}
	if c.Zero {
		j.zeroedCount.Add(1)
		// The labels were cleared, and in delta mode the rest is unknown.
		if j.Zeros && !j.Delta {
			return nil
		}
		return j.zero(c)
	}
	j.fetchedCount.Add(1)
	return j.fetchAndWrite(ctx, h, c)
}

// holds says whether the medium holds a chunk already. An unreadable one counts as missing: disks repair such
// places when they are written.
func (d *Device) holds(buf []byte, c images.Chunk) bool {
	raw := buf[:c.RawLength]
	if d.ReadMedium(raw, c.RawOffset) != nil {
		return false
	}
	// Comparing with zeros is several times faster than hashing, and an empty disk is common.
	return (c.Zero || !images.IsZero(raw)) && c.Verify(raw) == nil
}

func (j *job) zero(c images.Chunk) error {
	if err := j.d.zero(c.RawOffset, c.RawLength); err != nil {
		return err
	}
	j.wrote.Add(uint64(c.RawLength))
	return nil
}

// fetchAndWrite fetches a chunk and writes it.
func (j *job) fetchAndWrite(ctx context.Context, h *workerBuffers, c images.Chunk) error {
	raw, err := j.fetch(ctx, h, c)
	if err != nil {
		return err
	}
	if !j.HashOnly {
		j.sums[c.Index] = images.Quick(raw)
	}
	if err := j.d.WriteDirect(raw, c.RawOffset); err != nil {
		return fmt.Errorf("write chunk %d to %s at %d: %w", c.Index, j.d.Name, c.RawOffset, err)
	}
	j.wrote.Add(uint64(len(raw)))
	return nil
}

// readBack checks a chunk on the medium. It writes a wrong one once more: that repairs a disk that falsely
// claimed to read zeros, and a bad medium fails a second time.
func (j *job) readBack(ctx context.Context, h *workerBuffers, c images.Chunk) error {
	if j.kept[c.Index] {
		return nil
	}
	err := j.check(h, c)
	if errors.Is(err, images.ErrChunk) {
		if c.Zero {
			err = j.zero(c)
		} else {
			err = j.fetchAndWrite(ctx, h, c)
		}
		if err != nil {
			return err
		}
		if err := j.d.Flush(); err != nil {
			return err
		}
		if err = j.check(h, c); err != nil {
			return fmt.Errorf("read back from %s, written twice: %w", j.d.Name, err)
		}
	}
	if err == nil {
		j.verifiedOnMedium.Add(1)
	}
	return err
}

// check reads a chunk from the medium. The written bytes had been verified, so a quick sum of them is enough:
// the disk is no adversary.
func (j *job) check(h *workerBuffers, c images.Chunk) error {
	raw := h.raw[:c.RawLength]
	if err := j.d.ReadMedium(raw, c.RawOffset); err != nil {
		return fmt.Errorf("read chunk %d back from %s at %d: %w", c.Index, j.d.Name, c.RawOffset, err)
	}
	switch {
	case c.Zero && !images.IsZero(raw):
		return fmt.Errorf("chunk %d at %d: not zero on the medium: %w", c.Index, c.RawOffset, images.ErrChunk)
	case !c.Zero && images.Quick(raw) != j.sums[c.Index]:
		return fmt.Errorf("chunk %d at %d: the medium holds something else: %w", c.Index, c.RawOffset,
			images.ErrChunk)
	}
	return nil
}

// Resembles says whether enough of the image lies on the disk for a delta write to pay: from an earlier
// deployment of it or of a similar one, or from an interrupted write. It checks sixteen chunks all over the
// image. An empty disk and another system have none of them.
func (d *Device) Resembles(m *images.Manifest) bool {
	const looks, enough = 16, 2
	// Zeros prove nothing, and labels differ on every disk.
	telling := slices.Clone(m.Chunks[1:])
	telling = slices.DeleteFunc(telling, func(c images.Chunk) bool { return c.Zero })
	places := min(looks, len(telling))
	buf := blockdev.Buffer(images.ChunkSize)
	found := 0
	for i := range places {
		if d.holds(buf, telling[i*len(telling)/places]) {
			found++
		}
	}
	return found > 0 && found >= min(enough, places)
}
