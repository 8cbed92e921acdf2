package images

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// maxFrame bounds a frame: zstd stores incompressible data with three bytes for every block of 128 KiB and a
// header of at most 18 (RFC 8878 section 3.1.1).
const maxFrame = ChunkSize + ChunkSize/256 + 64

// ErrChunk is wrapped by every error about a chunk whose bytes differ from the manifest. Fetching them again
// may help, as nothing is wrong on our side.
var ErrChunk = errors.New("chunk differs from the manifest")

// A Decoder decodes and verifies chunks, one at a time. It takes a few hundred KiB beside the caller's
// buffers, whatever the input. Keep one for each goroutine.
type Decoder struct{ zstd *zstd.Decoder }

// NewDecoder makes a Decoder. It starts no goroutines, and nobody need close it.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(
		nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(ChunkSize),
		zstd.WithDecodeAllCapLimit(true), // decoding stops at the chunk's length, even if the frame holds more
	)
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &Decoder{z}, nil
}

// DecodeChunk verifies the frame of c, decodes it into dst, which it enlarges when needed, and returns the
// raw bytes. frame must be the c.Length bytes from c.Offset; c comes from a manifest that Parse returned.
//
// It hashes the frame and not the raw bytes: that is several times less to hash, and bytes that are not the
// image's never reach the decompressor. The frame's own checksum (xxh64) then guards against our decoding it
// wrongly.
func (d *Decoder) DecodeChunk(dst, frame []byte, c Chunk) ([]byte, error) {
	if int64(len(frame)) != c.Length {
		return nil, fmt.Errorf("chunk %d: %d bytes of frame, want %d: %w", c.Index, len(frame), c.Length,
			ErrChunk)
	}
	if got := HashChunk(frame); got != c.Sum {
		return nil, fmt.Errorf("chunk %d: %s of the frame is %s, want %s: %w", c.Index, HashName, got, c.Sum,
			ErrChunk)
	}
	return d.decode(dst, frame, c)
}

func (d *Decoder) decode(dst, frame []byte, c Chunk) ([]byte, error) {
	if c.RawLength <= 0 || c.RawLength > ChunkSize {
		return nil, fmt.Errorf("chunk %d: raw length %d, want 1 to %d", c.Index, c.RawLength, ChunkSize)
	}
	if int64(cap(dst)) < c.RawLength {
		dst = make([]byte, c.RawLength)
	}
	raw, err := d.zstd.DecodeAll(frame, dst[:0:c.RawLength])
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w: %w", c.Index, ErrChunk, err)
	}
	if int64(len(raw)) != c.RawLength {
		return nil, fmt.Errorf("chunk %d: %d raw bytes, want %d: %w", c.Index, len(raw), c.RawLength,
			ErrChunk)
	}
	return raw, nil
}

// Verify says whether raw has the chunk's hash. It is for bytes that somebody else may have written, such as
// those on a disk before a deployment. For bytes from DecodeChunk that are read back from a disk, comparing
// Quick is as good and several times cheaper.
func (c Chunk) Verify(raw []byte) error {
	if int64(len(raw)) != c.RawLength {
		return fmt.Errorf("chunk %d: %d raw bytes, want %d: %w", c.Index, len(raw), c.RawLength, ErrChunk)
	}
	if c.Zero {
		// Comparing with zeros is several times faster than hashing.
		if !IsZero(raw) {
			return fmt.Errorf("chunk %d at %d: not zero: %w", c.Index, c.RawOffset, ErrChunk)
		}
		return nil
	}
	if got := HashChunk(raw); got != c.Hash {
		return fmt.Errorf("chunk %d at %d: %s %s, want %s: %w", c.Index, c.RawOffset, HashName, got, c.Hash,
			ErrChunk)
	}
	return nil
}

// Quick is a checksum (xxh64) that finds accidents and not attacks. Compare that of DecodeChunk's bytes with
// that of the bytes read back from the disk.
func Quick(raw []byte) uint64 { return xxhash.Sum64(raw) }

var zeros [64 << 10]byte

// IsZero says whether all of b is zero.
func IsZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

var fullZeroHash = sync.OnceValue(func() Hash { return HashChunk(make([]byte, ChunkSize)) })

func zeroHash(n int64) Hash {
	if n == ChunkSize {
		return fullZeroHash()
	}
	return HashChunk(make([]byte, n))
}

// Numbers of the seek table: zstd's contrib/seekable_format/zstd_seekable_compression_format.md.
const (
	skippableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1
)

func seekTableSize(chunks int) int64 { return 8 + 8*int64(chunks) + 9 }

// SeekTable returns the end of disk.zst: the compressed and raw lengths of the frames, in a skippable frame
// that plain decoders pass over.
func SeekTable(chunks Chunks) []byte {
	le := binary.LittleEndian
	t := make([]byte, 0, seekTableSize(len(chunks)))
	t = le.AppendUint32(t, skippableMagic)
	t = le.AppendUint32(t, uint32(8*len(chunks)+9))
	for _, c := range chunks {
		t = le.AppendUint32(t, uint32(c.Length))
		t = le.AppendUint32(t, uint32(c.RawLength))
	}
	t = le.AppendUint32(t, uint32(len(chunks)))
	t = append(t, 0) // descriptor: no checksums, the manifest has better ones
	return le.AppendUint32(t, seekableMagic)
}
