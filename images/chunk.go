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

// maxFrame bounds a frame: zstd stores what it cannot compress with three bytes for every 128 KiB
// block and a header of at most 18 (RFC 8878 section 3.1.1).
const maxFrame = ChunkSize + ChunkSize/256 + 64

// ErrChunk is wrapped by every error that says that a chunk's bytes are not what the
// manifest promised; fetching them again may help, as nothing is wrong on our side.
var ErrChunk = errors.New("chunk differs from the manifest")

// A Decoder decodes and verifies chunks, one at a time. It holds a few hundred KiB beside the
// caller's buffers whatever it is fed; keep one for each goroutine.
type Decoder struct{ zstd *zstd.Decoder }

// NewDecoder makes a Decoder. It starts no goroutines and needs no closing.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(
		nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(ChunkSize),
		zstd.WithDecodeAllCapLimit(true), // a frame that holds more than it should stops at the chunk's length
	)
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &Decoder{z}, nil
}

// DecodeChunk verifies the frame of c, decodes it into dst, which is made larger when it is too
// small, and returns the raw bytes. frame must be what the manifest says, c.Length bytes
// from c.Offset; c comes from a manifest that Parse returned.
//
// The frame is hashed, not what comes out of it: that is several times less to hash, and bytes that
// are not the image's never reach the decompressor. The raw bytes then follow from the
// frame, whose own checksum (xxh64) guards against our decoding it wrongly.
func (d *Decoder) DecodeChunk(dst, frame []byte, c Chunk) ([]byte, error) {
	if int64(len(frame)) != c.Length {
		return nil, fmt.Errorf("chunk %d: %d bytes of frame, want %d: %w", c.Index, len(frame), c.Length, ErrChunk)
	}
	if got := HashChunk(frame); got != c.Sum {
		return nil, fmt.Errorf("chunk %d: %s of the frame is %s, want %s: %w", c.Index, HashName, got, c.Sum, ErrChunk)
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
		return nil, fmt.Errorf("chunk %d: %d raw bytes, want %d: %w", c.Index, len(raw), c.RawLength, ErrChunk)
	}
	return raw, nil
}

// Verify says whether raw is what the chunk holds, by its hash. It is for bytes that somebody else may have
// written, such as what lies on a disk before a deployment. For bytes that came out of DecodeChunk
// and are read back from a disk, comparing Quick is as good and several times cheaper.
func (c Chunk) Verify(raw []byte) error {
	if int64(len(raw)) != c.RawLength {
		return fmt.Errorf("chunk %d: %d raw bytes, want %d: %w", c.Index, len(raw), c.RawLength, ErrChunk)
	}
	if c.Zero {
		// Comparing is several times faster than hashing.
		if !IsZero(raw) {
			return fmt.Errorf("chunk %d at %d: not zero: %w", c.Index, c.RawOffset, ErrChunk)
		}
		return nil
	}
	if got := HashChunk(raw); got != c.Hash {
		return fmt.Errorf("chunk %d at %d: %s %s, want %s: %w", c.Index, c.RawOffset, HashName, got, c.Hash, ErrChunk)
	}
	return nil
}

// Quick is a checksum (xxh64) that finds accidents and not attacks: take it of the bytes
// that DecodeChunk returned, and again of what the disk gives back.
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

// The seek table's numbers: zstd's contrib/seekable_format/zstd_seekable_compression_format.md.
const (
	skippableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1
)

func seekTableSize(chunks int) int64 { return 8 + 8*int64(chunks) + 9 }

// SeekTable is what follows the frames in disk.zst: their compressed and raw lengths, in a
// skippable frame that plain decoders pass over.
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
