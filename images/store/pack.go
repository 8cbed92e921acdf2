package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/bug"
)

// A rawSource gives the raw image in order. It fills buf, short only at the end of the image, where it
// returns io.EOF with nothing. When it returns a filler instead, the n bytes are still to be had from
// that, by any goroutine.
type rawSource func(buf []byte) (n int, later filler, err error)

// A filler fills all of buf. zero says that it is known to be zero, and then buf was not touched.
type filler func(buf []byte) (zero bool, err error)

// A packed image is what pack found out while it wrote the frames.
type packed struct {
	chunks   images.Chunks
	rawSize  int64
	dataSize int64
}

// A piece is one chunk on its way: read by one goroutine, packed by any, written by one.
type piece struct {
	buf   []byte // ChunkSize of room
	raw   []byte // buf, as far as it was filled; nil when known to be zero
	given int    // of raw; the rest of its last sector is ours
	later filler // what fills that, when it was not filled by who read it
	size  int    // raw length
	room  []byte // for the frame
	frame []byte
	chunk images.Chunk
	done  chan struct{} // holds one value when the piece is packed
}

const (
	// maxPackers bounds the memory of an import: each takes two chunks and what an encoder takes, and two
	// more chunks are being read and written.
	maxPackers = 16

	// window is how far back the encoder looks. That of a whole chunk would make images 0.6 % smaller and
	// each encoder 6 MiB larger.
	window = 1 << 20
)

// A steadyFile has the kernel write to the medium while we go on, so that the sync at the end is short, and
// the page cache not full of what is still to be written.
type steadyFile struct {
	*os.File
	size, sent int64
}

const sendEvery = 8 << 20

func (f *steadyFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.size += int64(n); f.size-f.sent >= sendEvery {
		// A file system that cannot is no reason to stop: the sync has the last word.
		_ = unix.SyncFileRange(int(f.Fd()), f.sent, f.size-f.sent, unix.SYNC_FILE_RANGE_WRITE)
		f.sent = f.size
	}
	return n, err
}

// pack reads raw to its end and writes frames and seek table to w, packing on all cores.
// onChunk is called after each chunk, in order and from one goroutine.
func pack(ctx context.Context, raw rawSource, w io.Writer, onChunk func(rawSize, dataSize int64)) (packed, error) {
	packers := min(runtime.GOMAXPROCS(0), maxPackers)
	g, ctx := errgroup.WithContext(ctx)
	// Every piece is always in free, in todo, or in a packer's hands, and besides in order from its reading
	// to its writing; with room for all of them no send ever blocks.
	pieces := packers + 2
	free, todo, order := make(chan *piece, pieces), make(chan *piece, pieces), make(chan *piece, pieces)
	for range pieces {
		free <- &piece{
			buf: make([]byte, images.ChunkSize), done: make(chan struct{}, 1),
			room: make([]byte, 0, images.ChunkSize+images.ChunkSize/64), // an encoder that has to make it larger leaves the smaller ones lying about
		}
	}
	g.Go(func() (err error) {
		defer recovered("source", &err) // other people's decompressors run here
		defer close(order)
		defer close(todo)
		return readPieces(ctx, raw, free, todo, order)
	})
	for range packers {
		g.Go(func() (err error) {
			defer bug.Return(nil, "pack a chunk", &err)
			return packPieces(ctx, todo)
		})
	}
	var p packed
	g.Go(func() (err error) {
		defer bug.Return(nil, "write a chunk", &err)
		p, err = writePieces(ctx, order, free, w, onChunk)
		return err
	})
	if err := g.Wait(); err != nil {
		return packed{}, err
	}
	if p.rawSize == 0 {
		return packed{}, errors.New("the image is empty")
	}
	table := images.SeekTable(p.chunks)
	if _, err := w.Write(table); err != nil {
		return packed{}, err
	}
	p.dataSize += int64(len(table))
	return p, nil
}

func readPieces(ctx context.Context, raw rawSource, free <-chan *piece, todo, order chan<- *piece) error {
	var total int64
	for {
		var p *piece
		select {
		case p = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		n, later, err := raw(p.buf)
		if err == io.EOF { // bare: an error that wraps it is a cut stream, not an end
			return nil
		}
		if err != nil {
			return err
		}
		// Disks come in sectors: what is missing from the last one is zero.
		p.size = (n + 511) &^ 511
		p.raw, p.given, p.later = p.buf[:p.size], n, later
		clear(p.raw[n:])
		if total += int64(p.size); total > images.MaxRawSize {
			return tooLarge("image", total)
		}
		order <- p
		todo <- p
		if n < len(p.buf) {
			return nil
		}
	}
}

func packPieces(ctx context.Context, todo <-chan *piece) error {
	enc, err := zstd.NewWriter(
		nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(window),
	)
	if err != nil {
		return fmt.Errorf("zstd encoder: %w", err)
	}
	defer enc.Close()
	zero := make(map[int]*piece) // frames of zeros by their raw length: at most two in an image
	for {
		var p *piece
		select {
		case p = <-todo:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if p == nil {
			return nil
		}
		isZero := false
		if p.later != nil {
			if isZero, err = p.later(p.raw[:p.given]); err != nil {
				return err
			}
		}
		if isZero || images.IsZero(p.raw) {
			z := zero[p.size]
			if z == nil {
				clear(p.raw)
				z = &piece{raw: p.raw}
				z.pack(enc)
				z.raw, z.chunk.Zero = nil, true
				zero[p.size] = z
			}
			p.raw, p.frame, p.chunk = nil, z.frame, z.chunk
		} else {
			p.pack(enc)
		}
		p.done <- struct{}{}
	}
}

// pack makes p's frame of p's raw bytes.
func (p *piece) pack(enc *zstd.Encoder) {
	p.room = enc.EncodeAll(p.raw, p.room[:0])
	p.frame = p.room
	p.chunk = images.Chunk{
		Length:    int64(len(p.frame)),
		Sum:       images.HashChunk(p.frame),
		Hash:      images.HashChunk(p.raw),
		RawLength: int64(len(p.raw)),
	}
}

func writePieces(ctx context.Context, order <-chan *piece, free chan<- *piece, w io.Writer, onChunk func(int64, int64)) (packed, error) {
	var out packed
	for p := range order {
		select {
		case <-p.done:
		case <-ctx.Done():
			return packed{}, context.Cause(ctx)
		}
		if _, err := w.Write(p.frame); err != nil {
			return packed{}, err
		}
		p.chunk.Offset = out.dataSize
		out.chunks = append(out.chunks, p.chunk)
		out.rawSize += p.chunk.RawLength
		out.dataSize += p.chunk.Length
		onChunk(out.rawSize, out.dataSize)
		free <- p
	}
	return out, nil
}
