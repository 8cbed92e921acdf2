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

// A rawSource returns the raw image in order. It fills buf completely, except at the end of the image; after
// that it returns io.EOF. When it returns a filler, any goroutine can get the n bytes from that instead.
type rawSource func(buf []byte) (n int, later filler, err error)

// A filler fills all of buf, or returns zero when the bytes are zero and leaves buf alone.
type filler func(buf []byte) (zero bool, err error)

// A packed image describes the frames that pack wrote.
type packed struct {
	chunks   images.Chunks
	rawSize  int64
	dataSize int64
}

// A piece is one chunk in progress: one goroutine reads it, any packs it, one writes it.
type piece struct {
	buf        []byte // ChunkSize long
	raw        []byte // the filled part of buf; nil when it is zero
	fromSource int    // bytes of raw from the source; the rest fills the last sector
	fill       filler // fills raw, when the reader did not
	size       int    // raw length
	frameBuf   []byte // buffer for the frame
	frame      []byte
	chunk      images.Chunk
	done       chan struct{} // receives one value when the piece is packed
}

const (
	// maxPackers bounds the memory of an import: each packer takes two chunks and an encoder, and two more
	// chunks are being read and written.
	maxPackers = 16

	// window is how far back the encoder looks. A window of a whole chunk would make images 0.6 % smaller and
	// each encoder 6 MiB larger.
	window = 1 << 20
)

// A writebackFile makes the kernel write to the medium early, so that the sync at the end is short and the
// page cache does not fill up.
type writebackFile struct {
	*os.File
	size, sent int64
}

const sendEvery = 8 << 20

func (f *writebackFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.size += int64(n); f.size-f.sent >= sendEvery {
		// Some file systems cannot do this. The sync at the end decides.
		_ = unix.SyncFileRange(int(f.Fd()), f.sent, f.size-f.sent, unix.SYNC_FILE_RANGE_WRITE)
		f.sent = f.size
	}
	return n, err
}

// pack reads raw to its end and writes frames and seek table to w, packing on all cores. It calls onChunk
// after each chunk, in order and from one goroutine.
func pack(
	ctx context.Context, raw rawSource, w io.Writer, onChunk func(rawSize, dataSize int64),
) (packed, error) {
	packers := min(runtime.GOMAXPROCS(0), maxPackers)
	g, ctx := errgroup.WithContext(ctx)
	// Every piece is in free, in todo or with a packer, and in order from its reading to its writing. Each
	// channel has room for all of them, so no send ever blocks.
	pieces := packers + 2
	free, todo, order := make(chan *piece, pieces), make(chan *piece, pieces), make(chan *piece, pieces)
	for range pieces {
		free <- &piece{
			buf: make([]byte, images.ChunkSize), done: make(chan struct{}, 1),
			// So large that no encoder enlarges it.
			frameBuf: make([]byte, 0, images.ChunkSize+images.ChunkSize/64),
		}
	}
	g.Go(func() (err error) {
		defer recovered("source", &err) // third-party decompressors run here
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
		if err == io.EOF { // bare: a wrapped one is a cut stream, not the end
			return nil
		}
		if err != nil {
			return err
		}
		// Disks come in sectors: fill up the last one with zeros.
		p.size = (n + 511) &^ 511
		p.raw, p.fromSource, p.fill = p.buf[:p.size], n, later
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
		if p.fill != nil {
			if isZero, err = p.fill(p.raw[:p.fromSource]); err != nil {
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

// pack packs p's raw bytes into its frame.
func (p *piece) pack(enc *zstd.Encoder) {
	p.frameBuf = enc.EncodeAll(p.raw, p.frameBuf[:0])
	p.frame = p.frameBuf
	p.chunk = images.Chunk{
		Length:    int64(len(p.frame)),
		Sum:       images.HashChunk(p.frame),
		Hash:      images.HashChunk(p.raw),
		RawLength: int64(len(p.raw)),
	}
}

func writePieces(
	ctx context.Context, order <-chan *piece, free chan<- *piece, w io.Writer, onChunk func(int64, int64),
) (packed, error) {
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
