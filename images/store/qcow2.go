package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
	"github.com/lima-vm/go-qcow2reader/log"

	"github.com/pxectl/pxectl/images"
)

// qcow2HeaderSize is the part of the header that checkQcow2 reads: up to the compression type and its padding
// (QEMU docs/interop/qcow2.txt, "Header").
const qcow2HeaderSize = 112

// A qcow2Header has the fields that checkQcow2 found good.
type qcow2Header struct {
	size     int64 // of the raw image
	l1Offset int64
	l1Bytes  int64
}

// checkQcow2 checks a header before the library sees the file. The library opens the backing file that a
// header names, which would give any file of this host to whoever may import images. So checkQcow2 refuses
// everything that points outside the file, and absurd sizes.
func checkQcow2(h []byte) (qcow2Header, error) {
	var none qcow2Header
	if len(h) < 72 || string(h[:4]) != "QFI\xfb" {
		return none, errors.New("qcow2: no header")
	}
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	clusterBits := be.Uint32(h[20:])
	size := be.Uint64(h[24:])
	l1Size := int64(be.Uint32(h[36:]))
	l1Offset := be.Uint64(h[40:])
	switch {
	case version != 2 && version != 3:
		return none, fmt.Errorf("qcow2: version %d, want 2 or 3", version)
	case be.Uint64(h[8:]) != 0 || be.Uint32(h[16:]) != 0:
		return none, errors.New("qcow2: it is an overlay on a backing file, which is refused; " +
			"flatten it with `qemu-img convert -O qcow2 IN OUT` and import that")
	case be.Uint32(h[32:]) != 0:
		return none, fmt.Errorf("qcow2: encrypted (method %d), which is refused; import it decrypted",
			be.Uint32(h[32:]))
	case clusterBits < 9 || clusterBits > 21: // the bounds that QEMU sets
		return none, fmt.Errorf("qcow2: cluster_bits %d, want 9 to 21", clusterBits)
	case size == 0 || size > images.MaxRawSize:
		return none, fmt.Errorf("qcow2: virtual size %d bytes, want 1 to %d", size, int64(images.MaxRawSize))
	}
	if version == 3 {
		if err := checkQcow2V3(h); err != nil {
			return none, err
		}
	}
	// One L1 entry covers a cluster of 8-byte L2 entries, each of one cluster.
	covers := uint64(1) << (2*clusterBits - 3)
	if need := int64((size + covers - 1) / covers); l1Size < need || l1Size > need+1<<16 || l1Size > 4<<20 {
		return none, fmt.Errorf("qcow2: L1 table of %d entries, want %d for %d bytes", l1Size, need, size)
	}
	if l1Offset == 0 || l1Offset > images.MaxRawSize {
		return none, fmt.Errorf("qcow2: L1 table at %d", l1Offset)
	}
	return qcow2Header{size: int64(size), l1Offset: int64(l1Offset), l1Bytes: 8 * l1Size}, nil
}

func checkQcow2V3(h []byte) error {
	const dirty, corrupt, external, compressionType, extendedL2 = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
	if len(h) < 104 {
		return errors.New("qcow2: cut off in the header")
	}
	be := binary.BigEndian
	headerLength := be.Uint32(h[100:])
	if headerLength < 104 || headerLength > 4096 {
		return fmt.Errorf("qcow2: header length %d, want 104 to 4096", headerLength)
	}
	bits := be.Uint64(h[72:])
	switch {
	case bits&external != 0:
		return errors.New("qcow2: its data lie in another file, which is refused; " +
			"flatten it with `qemu-img convert -O qcow2 IN OUT` and import that")
	case bits&dirty != 0:
		return errors.New("qcow2: marked as dirty: a running machine's disk, or one that was not closed; " +
			"shut it down or run `qemu-img check -r all` first")
	case bits&corrupt != 0:
		return errors.New("qcow2: marked as corrupt by QEMU; make it again")
	case bits&extendedL2 != 0:
		return errors.New(
			"qcow2: extended L2 entries are not read; convert it with `qemu-img convert -O qcow2 IN OUT`")
	case bits&^compressionType != 0:
		return fmt.Errorf("qcow2: unknown incompatible features %#x; "+
			"convert it with `qemu-img convert -O qcow2 IN OUT`", bits&^compressionType)
	}
	if bits&compressionType != 0 {
		if headerLength < 112 || len(h) < qcow2HeaderSize {
			return errors.New("qcow2: says that it has a compression type, but not which")
		}
		if h[104] > 1 {
			return fmt.Errorf("qcow2: compression type %d, want 0 (deflate) or 1 (zstd)", h[104])
		}
	} else if headerLength > 104 && len(h) > 104 && h[104] != 0 {
		return fmt.Errorf("qcow2: compression type %d without the feature bit for it", h[104])
	}
	return nil
}

// A qcow2Image reads the raw image from a spooled qcow2 file.
type qcow2Image struct {
	img  *qcow2.Qcow2
	size int64
}

var qcow2Library sync.Once

func openQcow2(f *os.File) (_ *qcow2Image, err error) {
	defer recovered("qcow2", &err) // the library has panicked on odd files before
	qcow2Library.Do(setUpQcow2Library)
	h := make([]byte, qcow2HeaderSize)
	n, err := f.ReadAt(h, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header, err := checkQcow2(h[:n])
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if header.l1Offset+header.l1Bytes > st.Size() {
		return nil, fmt.Errorf("qcow2: its L1 table ends at %d, the file at %d; it is cut off",
			header.l1Offset+header.l1Bytes, st.Size())
	}
	// readerAtOnly hides the file's name, without which the library cannot follow a relative path.
	img, err := qcow2.Open(readerAtOnly{f}, func(io.ReaderAt, image.Type) (image.Image, error) {
		return nil, errors.New("backing files are refused")
	})
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", cut(err))
	}
	if err := img.Readable(); err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	return &qcow2Image{img, header.size}, nil
}

type readerAtOnly struct{ io.ReaderAt }

// readChunk fills buf from off, or returns true when the bytes are zero and leaves buf alone.
func (q *qcow2Image) readChunk(buf []byte, off int64) (zero bool, err error) {
	defer recovered("qcow2", &err)
	zero = true
	for done := int64(0); done < int64(len(buf)); {
		left := int64(len(buf)) - done
		e, err := q.img.Extent(off+done, left)
		if err != nil {
			return false, fmt.Errorf("qcow2: map at %d: %w", off+done, cut(err))
		}
		if e.Length <= 0 || e.Length > left {
			return false, fmt.Errorf("qcow2: map at %d: an extent of %d bytes", off+done, e.Length)
		}
		part := buf[done : done+e.Length]
		switch {
		case e.Zero || !e.Allocated:
			if !zero {
				clear(part)
			}
		default:
			if zero {
				clear(buf[:done])
				zero = false
			}
			if n, err := q.img.ReadAt(part, off+done); n != len(part) {
				return false, fmt.Errorf("qcow2: data at %d: %d of %d bytes: %w", off+done, n, len(part),
					cut(err))
			}
		}
		done += e.Length
	}
	return zero, nil
}

// recovered turns a library's panic on bad input into an error.
func recovered(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: its reader gave up on the file: %v", what, p)
	}
}

// setUpQcow2Library gives the library decompressors that are kept between clusters, read a whole cluster at
// once (its own loop unpacks the cluster anew after every short read) and fail on a cut cluster. It also
// keeps the library from writing to the process's log.
func setUpQcow2Library() {
	log.SetWarnFunc(nil)
	deflaters := sync.Pool{New: func() any { return flate.NewReader(nil) }}
	qcow2.SetDecompressor(qcow2.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) {
		z := deflaters.Get().(io.ReadCloser)
		if err := z.(flate.Resetter).Reset(r, nil); err != nil {
			return nil, err
		}
		return &cluster{z, func() { deflaters.Put(z) }}, nil
	})
	zstds := sync.Pool{New: func() any {
		// A cluster is at most 2 MiB, so no honest frame has a larger window.
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			panic(err) // wrong options: a bug here
		}
		return z
	}}
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		z := zstds.Get().(*zstd.Decoder)
		if err := z.Reset(r); err != nil {
			return nil, err
		}
		return &cluster{z, func() { zstds.Put(z) }}, nil
	})
}

type cluster struct {
	r    io.Reader
	done func()
}

func (c *cluster) Read(p []byte) (int, error) {
	n, err := io.ReadFull(c.r, p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *cluster) Close() error {
	c.done()
	return nil
}
