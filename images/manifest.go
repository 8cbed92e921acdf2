package images

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	// Format is the version of the manifest that this package writes, and the only one that it reads.
	Format = 2

	// ChunkSize is the raw size of a frame; the last one may be smaller.
	ChunkSize = 4 << 20

	// MaxRawSize bounds an image. It keeps the manifest below MaxManifest, and no image of an operating
	// system comes near it.
	MaxRawSize = 1 << 40

	// MaxManifest bounds the manifest's bytes: a chunk takes about 200 of them.
	MaxManifest = 64 << 20

	// MaxName bounds an image's name.
	MaxName = 128
)

// A Manifest describes one image. It is immutable. Read checks it and fills in the fields of its chunks that
// are not stored.
type Manifest struct {
	Format     int      `json:"format"`
	Name       string   `json:"name"`
	RawSize    int64    `json:"raw_size"`    // a multiple of 512
	SectorSize int      `json:"sector_size"` // of the disk for which the image was made: 512 or 4096
	ChunkSize  int64    `json:"chunk_size"`  // ChunkSize
	HashName   string   `json:"chunk_hash"`  // HashName: the hash of the chunks' sums and hashes
	DataSize   int64    `json:"data_size"`   // of disk.zst, seek table included
	Contents   Contents `json:"contents"`
	Chunks     Chunks   `json:"chunks"`
}

// Contents is the image's layout, as read at import. It informs; nothing that writes a disk relies on it.
type Contents struct {
	PartitionTable string `json:"partition_table,omitempty"` // "gpt", "mbr", or ""
	Partitions     int    `json:"partitions,omitempty"`
	BIOS           bool   `json:"bios,omitempty"` // sector 0 holds boot code
	UEFI           bool   `json:"uefi,omitempty"` // there is an EFI system partition
}

// A Chunk is one frame of disk.zst and its piece of the raw image.
type Chunk struct {
	Offset int64 `json:"offset"` // in disk.zst
	Length int64 `json:"length"` // in disk.zst
	Sum    Hash  `json:"sum"`    // of those bytes of disk.zst: checks what arrives
	Hash   Hash  `json:"hash"`   // of the raw bytes: checks what is on a disk
	Zero   bool  `json:"zero,omitempty"`

	Index     int   `json:"-"`
	RawOffset int64 `json:"-"` // in the raw image
	RawLength int64 `json:"-"`
}

// Chunks are the chunks of an image in order.
type Chunks []Chunk

// A Hash is 32 bytes, written as hex.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes lower-case hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText writes, and upper case.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash %.80q: %d characters, want %d hex digits", text, len(text),
			hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash %q: %w", text, err)
	}
	return nil
}

// ID is the id of the image with this manifest.
func ID(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return hex.EncodeToString(sum[:])
}

// CheckName refuses names that do not fit a command line, a path or a table.
func CheckName(name string) error {
	if name == "" {
		return errors.New("image name: empty")
	}
	if len(name) > MaxName {
		return fmt.Errorf("image name %.40q…: %d bytes, at most %d", name, len(name), MaxName)
	}
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("._+-", r)
	}
	if len(name) == 64 && strings.Trim(name, "0123456789abcdefABCDEF") == "" {
		return fmt.Errorf("image name %q: could be taken for an id", name)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !allowed(r) }); i >= 0 ||
		strings.ContainsAny(name[:1], ".-+") {
		return fmt.Errorf("image name %q: want letters, digits and ._+- with a letter or digit first", name)
	}
	return nil
}

// Encode checks the manifest and returns the bytes whose hash is its id. The same manifest always gives the
// same bytes.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// RawHash is equal for two images exactly when their disks are, however they were packed. It is the hash of
// the chunks' hashes, in order, and of the size.
func (m *Manifest) RawHash() Hash {
	all := make([]byte, 0, len(m.Chunks)*len(Hash{})+8)
	for _, c := range m.Chunks {
		all = append(all, c.Hash[:]...)
	}
	return HashChunk(binary.LittleEndian.AppendUint64(all, uint64(m.RawSize)))
}

// ZeroBytes is the size of the zero chunks, raw.
func (m *Manifest) ZeroBytes() int64 {
	var n int64
	for _, c := range m.Chunks {
		if c.Zero {
			n += c.RawLength
		}
	}
	return n
}
