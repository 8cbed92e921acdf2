package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Parse reads a manifest in memory, as Read does.
func Parse(data []byte) (*Manifest, error) {
	m, _, err := Read(bytes.NewReader(data))
	return m, err
}

// Read reads a manifest from anybody. Its cost is bounded by the manifest's length, and callers can rely on
// the result: the chunks cover the raw image exactly, in order, and their frames follow one another inside
// the data.
//
// Read returns the id even when it refuses the manifest; the id is empty when r broke off. The text is never
// in memory as a whole: that of the largest image has 50 MB.
func Read(r io.Reader) (m *Manifest, id string, err error) {
	sum := sha256.New()
	in := &source{r: r}
	text := io.TeeReader(in, sum)
	m, err = read(text)
	// The rest of a refused manifest belongs to the id, too.
	_, _ = io.Copy(io.Discard, text)
	switch {
	case in.err != nil:
		return nil, "", fmt.Errorf("image manifest: %w", in.err)
	case in.n > MaxManifest:
		return nil, "", fmt.Errorf("image manifest: more than %d bytes", MaxManifest)
	}
	return m, hex.EncodeToString(sum.Sum(nil)), err
}

// A source ends after MaxManifest bytes and keeps the error of reading.
type source struct {
	r   io.Reader
	n   int
	err error // of r, except its end
}

func (s *source) Read(p []byte) (int, error) {
	if s.n > MaxManifest {
		return 0, io.EOF
	}
	n, err := s.r.Read(p)
	s.n += n
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func read(r io.Reader) (*Manifest, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("image manifest: not a JSON object; this is not an image manifest")
	}
	// Check chunks as they come, so that a list of millions of empty ones ends at the first and not when
	// memory does. Everything else is small, and is checked at the end.
	fields := map[string]json.RawMessage{}
	var chunks Chunks
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("image manifest: %w", err)
		}
		key, _ := t.(string)
		if key == "chunks" {
			if chunks, err = readChunks(dec, expected(fields["raw_size"])); err != nil {
				return nil, fmt.Errorf("image manifest: %w", err)
			}
			continue
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("image manifest: %w", err)
		}
		fields[key] = value
		if key == "format" {
			// Do not check the fields of another version.
			if err := checkFormat(value); err != nil {
				return nil, err
			}
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("image manifest: something follows the JSON object")
	}
	if fields["format"] == nil {
		return nil, errors.New("image manifest: no format version; this is not an image manifest")
	}
	head, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	m := &Manifest{}
	strict := json.NewDecoder(bytes.NewReader(head))
	strict.DisallowUnknownFields()
	if err := strict.Decode(m); err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	m.Chunks = chunks
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func checkFormat(value json.RawMessage) error {
	var format int
	if err := json.Unmarshal(value, &format); err != nil {
		return fmt.Errorf("image manifest: format: %w", err)
	}
	if format != Format {
		return fmt.Errorf("image manifest: format %d, this version reads %d; import the image again", format,
			Format)
	}
	return nil
}

// expected is the plausible number of chunks for an image of this size, so that the list need not grow.
func expected(rawSize json.RawMessage) int {
	var size int64
	if json.Unmarshal(rawSize, &size) != nil || size < 0 || size > MaxRawSize {
		return 0
	}
	return int((size + ChunkSize - 1) / ChunkSize)
}

func readChunks(dec *json.Decoder, expected int) (Chunks, error) {
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("chunks: not a list")
	}
	chunks := make(Chunks, 0, expected)
	var end int64
	for dec.More() {
		var c Chunk
		if err := dec.Decode(&c); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", len(chunks), err)
		}
		if err := c.follows(end); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", len(chunks), err)
		}
		end = c.Offset + c.Length
		if chunks = append(chunks, c); len(chunks) > MaxRawSize/ChunkSize {
			return nil, fmt.Errorf("more than %d chunks", MaxRawSize/ChunkSize)
		}
	}
	_, err := dec.Token()
	return chunks, err
}

// follows checks that the frame begins at end, where the last one ended.
func (c Chunk) follows(end int64) error {
	switch {
	case c.Offset != end:
		return fmt.Errorf("offset %d, want %d where the frame before it ends", c.Offset, end)
	case c.Length <= 0 || c.Length > maxFrame:
		return fmt.Errorf("length %d, want 1 to %d", c.Length, maxFrame)
	case c.Sum == Hash{}:
		return errors.New("sum is missing")
	case c.Hash == Hash{}:
		return errors.New("hash is missing")
	}
	return nil
}

func (m *Manifest) check() error {
	if m.Format != Format {
		return fmt.Errorf("image manifest: format %d, want %d", m.Format, Format)
	}
	if err := CheckName(m.Name); err != nil {
		return fmt.Errorf("image manifest: %w", err)
	}
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("image manifest of %s: %s %v, want %s", m.Name, field, value, want)
	}
	chunks := (m.RawSize + ChunkSize - 1) / ChunkSize
	switch {
	case m.RawSize <= 0 || m.RawSize > MaxRawSize || m.RawSize%512 != 0:
		return bad("raw_size", m.RawSize, fmt.Sprintf("a multiple of 512, at most %d", int64(MaxRawSize)))
	case m.SectorSize != 512 && m.SectorSize != 4096:
		return bad("sector_size", m.SectorSize, "512 or 4096")
	case m.ChunkSize != ChunkSize:
		return bad("chunk_size", m.ChunkSize, fmt.Sprint(ChunkSize))
	case m.HashName != HashName:
		return bad("chunk_hash", fmt.Sprintf("%.40q", m.HashName), HashName)
	case int64(len(m.Chunks)) != chunks:
		return bad("chunks", len(m.Chunks), fmt.Sprintf("%d for %d bytes", chunks, m.RawSize))
	case m.Contents.PartitionTable != "" && m.Contents.PartitionTable != "gpt" &&
		m.Contents.PartitionTable != "mbr":
		return bad("partition_table", fmt.Sprintf("%.40q", m.Contents.PartitionTable), "gpt, mbr or nothing")
	}
	var end int64
	for i := range m.Chunks {
		c := &m.Chunks[i]
		if err := c.follows(end); err != nil {
			return fmt.Errorf("image manifest of %s: chunk %d: %w", m.Name, i, err)
		}
		end = c.Offset + c.Length
		c.Index = i
		c.RawOffset = int64(i) * ChunkSize
		c.RawLength = min(ChunkSize, m.RawSize-c.RawOffset)
		if c.Zero && c.Hash != zeroHash(c.RawLength) {
			return fmt.Errorf("image manifest of %s: chunk %d: said to be zero, "+
				"but its hash is not that of zeros", m.Name, i)
		}
	}
	if want := end + seekTableSize(len(m.Chunks)); m.DataSize != want {
		return bad("data_size", m.DataSize, fmt.Sprintf("%d (the frames and their seek table)", want))
	}
	return nil
}
