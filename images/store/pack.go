package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/pxectl/pxectl/images"
)

// A rawSource gives the raw image in order. It fills buf, short only at the end of the image, where it
// returns io.EOF with nothing. zero says that the n bytes are known to be zero, and then
// buf was not touched.
type rawSource func(buf []byte) (n int, zero bool, err error)

// A packed image is what pack found out while it wrote the frames.
type packed struct {
	chunks   images.Chunks
	rawSize  int64
	dataSize int64
	sha256   images.Hash
	head     []byte // the first chunk's raw bytes
}

// A piece is one chunk on its way: read by one goroutine, packed by any, written by one.
type piece struct {
	buf   []byte // ChunkSize of room
	raw   []byte // buf, as far as it was filled; nil when known to be zero
	size  int    // raw length
	room  []byte // for the frame
	frame []byte
	chunk images.Chunk
	done  chan struct{} // holds one value when the piece is packed
}

// maxPackers bounds the memory of an import: each takes two chunks, and so do four more.
const maxPackers = 16

// pack reads raw to its end and writes frames and seek table to w, packing on all cores.
// onChunk is called after each chunk, in order and from one goroutine.
func pack(ctx context.Context, raw rawSource, w io.Writer, onChunk func(rawSize, dataSize int64)) (packed, error) {
	packers := min(runtime.GOMAXPROCS(0), maxPackers)
	g, ctx := errgroup.WithContext(ctx)
	// Every piece is always in free, in todo, or in a packer's hands, and besides in order from its reading
	// to its writing; with room for all of them no send ever blocks.
	pieces := packers + 4
	free, todo, order := make(chan *piece, pieces), make(chan *piece, pieces), make(chan *piece, pieces)
	for range pieces {
		free <- &piece{buf: make([]byte, images.ChunkSize), done: make(chan struct{}, 1)}
	}
	g.Go(func() (err error) {
		defer recovered("source", &err) // other people's decompressors run here
		defer close(order)
		defer close(todo)
		return readPieces(ctx, raw, free, todo, order)
	})
	for range packers {
		g.Go(func() error { return packPieces(ctx, todo) })
	}
	var p packed
	g.Go(func() (err error) {
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
		n, zero, err := raw(p.buf)
		if err == io.EOF { // bare: an error that wraps it is a cut stream, not an end
			return nil
		}
		if err != nil {
			return err
		}
		// Disks come in sectors: what is missing from the last one is zero.
		p.size = (n + 511) &^ 511
		p.raw = nil
		if !zero {
			p.raw = p.buf[:p.size]
			clear(p.raw[n:])
		}
		if total += int64(p.size); total > images.MaxRawSize {
			return fmt.Errorf("the image is larger than %d bytes, which is the most that is taken", int64(images.MaxRawSize))
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
		zstd.WithWindowSize(images.ChunkSize),
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
		if p.raw == nil || images.IsZero(p.raw) {
			z := zero[p.size]
			if z == nil {
				z = &piece{raw: make([]byte, p.size)}
				z.pack(enc)
				z.chunk.Zero = true
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
	sum := sha256.New()
	zeros := make([]byte, images.ChunkSize)
	for p := range order {
		select {
		case <-p.done:
		case <-ctx.Done():
			return packed{}, context.Cause(ctx)
		}
		raw := p.raw
		if raw == nil {
			raw = zeros[:p.size]
		}
		sum.Write(raw)
		if _, err := w.Write(p.frame); err != nil {
			return packed{}, err
		}
		if len(out.chunks) == 0 {
			out.head = append(out.head, raw...)
		}
		p.chunk.Offset = out.dataSize
		out.chunks = append(out.chunks, p.chunk)
		out.rawSize += p.chunk.RawLength
		out.dataSize += p.chunk.Length
		onChunk(out.rawSize, out.dataSize)
		free <- p
	}
	sum.Sum(out.sha256[:0])
	return out, nil
}
