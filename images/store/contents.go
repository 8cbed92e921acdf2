package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/contents"
)

// systemFile has the contents of the image. It lies beside the manifest and not in it, since it is no part of
// the image's identity.
const systemFile = "system.json"

// layout is the part of the manifest about the image's partition table.
func layout(t contents.Table) images.Contents {
	return images.Contents{
		PartitionTable: t.Kind,
		Partitions:     len(t.Partitions),
		BIOS:           t.BootCode && t.Kind != "",
		UEFI:           t.HasESP(),
	}
}

// readContents reads the contents of the packed image. A failure leaves the software unknown and has no other
// effect.
func readContents(data io.ReaderAt, p packed) (t contents.Table, s contents.Software, err error) {
	r, err := newUnpacked(data, p)
	if err != nil {
		return t, s, err
	}
	t, err = readTable(r, p.rawSize)
	if err != nil {
		return t, s, err
	}
	s, err = readSoftware(r, p.rawSize, t)
	return t, s, err
}

func readTable(r io.ReaderAt, size int64) (t contents.Table, err error) {
	defer recovered("partition table", &err)
	return contents.ReadTable(r, size), nil
}

func readSoftware(r io.ReaderAt, size int64, t contents.Table) (s contents.Software, err error) {
	defer recovered("contents", &err)
	return contents.Read(r, size, t), nil
}

// unpacked reads raw bytes of a packed image, at any offset.
type unpacked struct {
	data   io.ReaderAt
	p      packed
	dec    *images.Decoder
	frame  []byte
	raw    []byte // of the current chunk
	at     int
	chunks int // remaining chunks to unpack
}

// maxUnpacked bounds the cost of reading an image's contents: 100 chunks are about half a second.
const maxUnpacked = 100

func newUnpacked(data io.ReaderAt, p packed) (*unpacked, error) {
	dec, err := images.NewDecoder()
	if err != nil {
		return nil, err
	}
	return &unpacked{data: data, p: p, dec: dec, at: -1, chunks: maxUnpacked}, nil
}

func (u *unpacked) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		if off < 0 || off >= u.p.rawSize {
			return n, io.EOF
		}
		i := int(off / images.ChunkSize)
		from := off % images.ChunkSize
		var m int
		if c := u.p.chunks[i]; c.Zero {
			m = int(min(int64(len(b)-n), c.RawLength-from))
			clear(b[n : n+m])
		} else {
			if err := u.unpack(i); err != nil {
				return n, err
			}
			m = copy(b[n:], u.raw[from:])
		}
		n += m
		off += int64(m)
	}
	return n, nil
}

func (u *unpacked) unpack(i int) error {
	if u.at == i {
		return nil
	}
	if u.chunks--; u.chunks < 0 {
		return errors.New("the image is too scattered to look into")
	}
	c := u.p.chunks[i]
	if int64(cap(u.frame)) < c.Length {
		u.frame = make([]byte, c.Length)
	}
	u.frame = u.frame[:c.Length]
	if _, err := u.data.ReadAt(u.frame, c.Offset); err != nil {
		return err
	}
	u.at = -1
	raw, err := u.dec.DecodeChunk(u.raw, u.frame, c)
	if err != nil {
		return err
	}
	u.raw, u.at = raw, i
	return nil
}

func writeSystem(dir string, s contents.Software) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("%s: %w", systemFile, err)
	}
	return writeSynced(filepath.Join(dir, systemFile), append(b, '\n'))
}

// loadSystem returns nil when nothing is known of an image: an older release imported it, or the file is
// damaged.
func (s *Store) loadSystem(id string) *contents.Software {
	path := filepath.Join(s.dir, id, systemFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	system := new(contents.Software)
	if err == nil {
		err = json.Unmarshal(b, system)
	}
	if err != nil {
		s.log.Warn("what is known of an image's contents cannot be read", "path", path, "err", err)
		return nil
	}
	return system
}
