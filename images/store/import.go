package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/images"
)

// ImportOptions describe an import. Only Name is required.
type ImportOptions struct {
	Name   string
	Format string // "raw", "qcow2", or "auto" (also ""): found from the content
	SHA256 string // of the source as it is, compressed or not, in hex
	SHA512 string // the same
	Force  bool   // keep an image even if no machine could boot it
	By     string // who asked for it, for the log
	Size   int64  // of the source, for Progress.Total; 0 when unknown. A hint only

	// Progress is called a few times a second and at the end, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far an import is.
type Progress struct {
	Phase string `json:"phase"` // "receive" reads the source; "convert" reads a qcow2 that has been received
	Done  int64  `json:"done"`  // bytes of the phase's input
	Total int64  `json:"total"` // 0 when unknown
	Raw   int64  `json:"raw"`   // bytes of raw image packed
	Data  int64  `json:"data"`  // bytes that they take in the store
}

// ErrUnfit says that no machine could start from the image.
var ErrUnfit = errors.New("this is no image that can be deployed")

// Import reads an image from src and adds it to the store, completely or not at all. It packs a raw image as
// it arrives. It first writes a qcow2 to a file, as its parts lie in any order. Cancelling ctx ends it
// between two reads of src; if src can block for ever, the caller must also make it stop.
func (s *Store) Import(ctx context.Context, src io.Reader, opt ImportOptions) (Info, error) {
	// The workers' buffers are most of the process's memory: 120 MB resident against 22 MB before.
	defer debug.FreeOSMemory()
	info, err := s.importImage(ctx, src, opt)
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("the disk of the image store is full, nothing was kept: %w", err)
	}
	if err != nil {
		return Info{}, fmt.Errorf("import image %s: %w", opt.Name, err)
	}
	return info, nil
}

func (s *Store) importImage(ctx context.Context, src io.Reader, opt ImportOptions) (Info, error) {
	sums, err := opt.check()
	if err != nil {
		return Info{}, err
	}
	if id := s.idThatBegins(opt.Name); id != "" {
		return Info{}, fmt.Errorf("image name %q: the id of image %s begins so: %s", opt.Name, id[:12],
			otherName)
	}
	start := time.Now()
	temp, err := os.MkdirTemp(s.dir, tempPrefix+"import-")
	if err != nil {
		return Info{}, err
	}
	defer os.RemoveAll(temp) // the kept files are no longer in it

	in := &intake{ctx: ctx, src: src, sums: sums}
	report := throttle(opt.Progress)
	data, err := os.Create(filepath.Join(temp, dataFile))
	if err != nil {
		return Info{}, err
	}
	defer data.Close()
	p, err := s.convert(ctx, in, temp, &writebackFile{File: data}, opt, report)
	if err != nil {
		return Info{}, err
	}
	if err := in.finish(); err != nil {
		return Info{}, err
	}
	if err := data.Sync(); err != nil {
		return Info{}, err
	}
	m := &images.Manifest{
		Format: images.Format, Name: opt.Name, RawSize: p.rawSize, ChunkSize: images.ChunkSize,
		HashName: images.HashName, DataSize: p.dataSize, Chunks: p.chunks,
	}
	table, system, err := readContents(data, p)
	if err != nil {
		s.log.Warn("the image's contents are not known", "name", opt.Name, "err", err)
	}
	if system.Fault != "" && !opt.Force {
		return Info{}, fmt.Errorf("%w: %s", ErrUnfit, system.Fault)
	}
	if m.Contents, m.SectorSize = layout(table), table.SectorSize; m.SectorSize == 0 {
		m.SectorSize = 512
	}
	if err := writeSystem(temp, system); err != nil {
		return Info{}, err
	}
	info, err := s.publish(temp, m)
	if err != nil {
		return Info{}, err
	}
	s.log.Info("image imported", "name", info.Name, "id", info.ID, "raw", info.RawSize, "zero",
		info.ZeroBytes, "data", info.DataSize,
		"source", in.read.Load(), "actor", opt.By, "took", time.Since(start).Round(time.Millisecond))
	return info, nil
}

// Check returns what is wrong with the options, before anything is read.
func (o ImportOptions) Check() error {
	_, err := o.check()
	return err
}

func (o ImportOptions) check() ([]checksum, error) {
	if err := images.CheckName(o.Name); err != nil {
		return nil, err
	}
	if looksLikeID(o.Name) {
		return nil, fmt.Errorf("image name %q: looks like an id: %s", o.Name, otherName)
	}
	switch o.Format {
	case "", "auto", "raw", "qcow2":
	default:
		return nil, fmt.Errorf("format %q: want auto, raw or qcow2", o.Format)
	}
	return o.checksums()
}

// convert reads the source to the end of its image and writes the packed image to data.
func (s *Store) convert(
	ctx context.Context, in *intake, temp string, data io.Writer, opt ImportOptions,
	report func(Progress, bool),
) (packed, error) {
	r, done, err := decompress(in)
	if err != nil {
		return packed{}, err
	}
	defer done()
	head, err := r.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return packed{}, err
	}
	format := opt.Format
	if format == "" || format == "auto" {
		if format, err = formatOf(head); err != nil {
			return packed{}, err
		}
	}
	if opt.Size > images.MaxRawSize {
		return packed{}, tooLarge("source", opt.Size) // before reading it for hours
	}
	at := Progress{Phase: "receive", Total: opt.Size}
	if format == "raw" {
		p, err := pack(ctx, streamed(r, in), data, func(raw, stored int64) {
			at.Done, at.Raw, at.Data = in.read.Load(), raw, stored
			report(at, false)
		})
		at.Done = in.read.Load()
		report(at, true)
		return p, err
	}

	// Refuse a bad header before receiving gigabytes.
	header, err := checkQcow2(head)
	if err != nil {
		return packed{}, err
	}
	spool, err := os.Create(filepath.Join(temp, "source.qcow2"))
	if err != nil {
		return packed{}, err
	}
	defer spool.Close()
	if err := receive(r, spool, func() {
		at.Done = in.read.Load()
		report(at, false)
	}); err != nil {
		return packed{}, err
	}
	report(at, true)
	if err := checkRatio(header.size, in.read.Load()); err != nil {
		return packed{}, err
	}
	q, err := openQcow2(spool)
	if err != nil {
		return packed{}, err
	}
	at = Progress{Phase: "convert", Total: header.size}
	p, err := pack(ctx, q.inOrder(), data, func(raw, stored int64) {
		at.Done, at.Raw, at.Data = min(raw, header.size), raw, stored
		report(at, false)
	})
	report(at, true)
	switch {
	case err != nil:
		return packed{}, err
	case p.rawSize-header.size < 0 || p.rawSize-header.size >= 512:
		return packed{}, fmt.Errorf("qcow2: %d bytes came out of an image of %d", p.rawSize, header.size)
	}
	return p, os.Remove(spool.Name())
}

// maxRatio bounds the ratio of an image to its source, for images of more than ratioFrom bytes. zstd can make
// 30,000 bytes of one, and we would hash zeros for an hour. A disk of 1 TiB with no more than a small system
// on it is below maxRatio.
const (
	maxRatio  = 10_000
	ratioFrom = 8 << 30
)

func checkRatio(raw, source int64) error {
	if raw > ratioFrom && raw/maxRatio > source {
		return fmt.Errorf("%d bytes of source unpack to %d and more, over %d times as much: "+
			"an empty disk, or a file made to keep us busy", source, raw, maxRatio)
	}
	return nil
}

func tooLarge(what string, size int64) error {
	return fmt.Errorf("the %s is of %d bytes and more, the most that is taken is %d", what, size,
		int64(images.MaxRawSize))
}

// streamed reads a raw image as it arrives; in is its source, still compressed.
func streamed(r *bufio.Reader, in *intake) rawSource {
	var total int64
	return func(buf []byte) (int, filler, error) {
		n, err := io.ReadFull(r, buf)
		total += int64(n)
		if err := checkRatio(total, in.read.Load()); err != nil {
			return 0, nil, err
		}
		if _, next := r.Peek(1); next == io.EOF && isFooter(buf[max(0, n-footerSize):n], total-footerSize) {
			n -= footerSize
		}
		// ReadFull returns the bare error when the source ends within buf. A cut stream gives an error that
		// wraps it.
		if err == io.ErrUnexpectedEOF {
			err = nil
		}
		if n == 0 && err == nil {
			err = io.EOF
		}
		return n, nil, err
	}
}

// inOrder reads a qcow2's raw image from beginning to end, as many chunks at once as there are packers.
func (q *qcow2Image) inOrder() rawSource {
	var next int64
	return func(buf []byte) (int, filler, error) {
		if next == q.size {
			return 0, nil, io.EOF
		}
		off, n := next, min(int64(len(buf)), q.size-next)
		next += n
		return int(n), func(buf []byte) (bool, error) { return q.readChunk(buf, off) }, nil
	}
}

// receive copies r to its end.
func receive(r io.Reader, w io.Writer, onRead func()) (err error) {
	defer recovered("source", &err)
	buf := make([]byte, 1<<20)
	var total int64
	for {
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if total += int64(n); total > images.MaxRawSize {
			return tooLarge("source", total)
		}
		onRead()
		if err == io.EOF { // bare: a wrapped one is a cut stream, not the end
			return nil
		}
		if err != nil {
			return err
		}
	}
}
