package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/bug"
)

// A Verdict is the result of Verify.
type Verdict struct {
	Image   Info     `json:"image"`
	Damage  []Damage `json:"damage"`  // the first ones; empty: every byte is as it was imported
	Damaged int      `json:"damaged"` // all damaged chunks, also those that Damage has no room for
}

// Damage is one chunk that differs from the manifest.
type Damage struct {
	Chunk     int    `json:"chunk"`      // -1: the damage is outside of the chunks
	RawOffset int64  `json:"raw_offset"` // the place of its bytes on a disk
	RawLength int64  `json:"raw_length"`
	Reason    string `json:"reason"`
}

// maxDamage bounds a verdict's list.
const maxDamage = 16

func (v *Verdict) add(d Damage) {
	if v.Damaged++; len(v.Damage) < maxDamage {
		v.Damage = append(v.Damage, d)
	}
}

// Verify reads the image that Get finds from its medium: each frame's sum, each chunk's raw hash and the seek
// table. An error means that the image could not be read to the end, not that it is damaged.
func (s *Store) Verify(ctx context.Context, ref string, progress func(Progress)) (Verdict, error) {
	defer debug.FreeOSMemory() // as after an import
	info, err := s.Get(ref)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Image: info, Damage: []Damage{}}
	if err := s.verify(ctx, &v, throttle(progress)); err != nil {
		return Verdict{}, fmt.Errorf("verify image %s: %w", info.Name, err)
	}
	s.log.Info("image verified", "name", info.Name, "id", info.ID, "damaged", v.Damaged)
	return v, nil
}

func (s *Store) verify(ctx context.Context, v *Verdict, report func(Progress, bool)) error {
	whole := func(format string, args ...any) {
		v.add(Damage{Chunk: -1, Reason: fmt.Sprintf(format, args...)})
	}
	_, m, err := s.Manifest(v.Image.ID)
	if err != nil {
		whole("%v", err)
		return nil
	}
	f, err := os.Open(s.DataPath(v.Image.ID))
	if err != nil {
		whole("%v", err)
		return nil
	}
	defer f.Close()
	// The page cache proves nothing about the medium, so drop it. If that fails, verify all the same.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)

	if err := verifyChunks(ctx, f, m, v, report); err != nil {
		return err
	}
	want := images.SeekTable(m.Chunks)
	table := make([]byte, len(want))
	if _, err = f.ReadAt(table, m.DataSize-int64(len(table))); err != nil || !bytes.Equal(table, want) {
		whole("the seek table at the end of %s is damaged (%v)", dataFile, err)
	}
	return nil
}

// A reading is one chunk in progress in verifyChunks.
type reading struct {
	chunk  images.Chunk
	frame  []byte
	rawBuf []byte // for raw
	raw    []byte
	err    error
	done   chan struct{} // receives one value when the chunk is checked
}

// verifyChunks reads and checks all chunks on all cores.
func verifyChunks(
	ctx context.Context, f io.ReaderAt, m *images.Manifest, v *Verdict, report func(Progress, bool),
) error {
	workers := min(runtime.GOMAXPROCS(0), maxPackers)
	g, ctx := errgroup.WithContext(ctx)
	// As in pack, every channel has room for every reading.
	readings := workers + 1
	free, todo, order := make(chan *reading, readings), make(chan *reading, readings), make(chan *reading,
		readings)
	for range readings {
		free <- &reading{done: make(chan struct{}, 1), rawBuf: make([]byte, images.ChunkSize)}
	}
	var decoders []*images.Decoder
	for range workers {
		dec, err := images.NewDecoder()
		if err != nil {
			return err
		}
		decoders = append(decoders, dec)
	}
	g.Go(func() (err error) {
		defer bug.Return(nil, "verify an image", &err)
		defer close(order)
		defer close(todo)
		for _, c := range m.Chunks {
			select {
			case r := <-free:
				r.chunk = c
				order <- r
				todo <- r
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for _, dec := range decoders {
		g.Go(func() (err error) {
			defer bug.Return(nil, "verify an image", &err)
			for r := range todo {
				r.check(f, dec)
				r.done <- struct{}{}
			}
			return nil
		})
	}
	at := Progress{Phase: "verify", Total: m.RawSize}
	g.Go(func() (err error) {
		defer bug.Return(nil, "verify an image", &err)
		for r := range order {
			<-r.done // workers empty todo, even when ctx has ended
			if r.err != nil {
				v.add(Damage{r.chunk.Index, r.chunk.RawOffset, r.chunk.RawLength, r.err.Error()})
			}
			at.Done += r.chunk.RawLength
			at.Raw, at.Data = at.Done, r.chunk.Offset+r.chunk.Length
			report(at, at.Done == m.RawSize)
			free <- r
		}
		return nil
	})
	return g.Wait()
}

// check reads one chunk and compares it with its manifest.
func (r *reading) check(f io.ReaderAt, dec *images.Decoder) {
	defer bug.Return(nil, "read a chunk", &r.err)
	c := r.chunk
	if int64(cap(r.frame)) < c.Length {
		r.frame = make([]byte, c.Length)
	}
	r.frame = r.frame[:c.Length]
	if n, err := f.ReadAt(r.frame, c.Offset); n < len(r.frame) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		r.err = fmt.Errorf("chunk %d: read %s at %d: %w", c.Index, dataFile, c.Offset, err)
		return
	}
	if r.raw, r.err = dec.DecodeChunk(r.rawBuf, r.frame, c); r.err == nil {
		r.err = c.Verify(r.raw)
	}
}
