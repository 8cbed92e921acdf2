package images

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func parsed(t testing.TB) (raw, data []byte, m *Manifest) {
	t.Helper()
	raw, data, m = testImage(t)
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	return raw, data, m
}

func TestDecodeChunk(t *testing.T) {
	raw, data, m := parsed(t)
	dec, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, ChunkSize)
	for _, c := range m.Chunks {
		got, err := dec.DecodeChunk(buf, data[c.Offset:c.Offset+c.Length], c)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, raw[c.RawOffset:c.RawOffset+c.RawLength]) {
			t.Errorf("chunk %d decodes to something else", c.Index)
		}
		// Direct I/O needs the bytes in the caller's aligned buffer, not in a copy.
		if &got[0] != &buf[0] {
			t.Errorf("chunk %d was not decoded into the buffer that was given", c.Index)
		}
		if err := c.Verify(got); err != nil {
			t.Errorf("Verify(chunk %d) = %v, want nil", c.Index, err)
		}
		got[7]++
		if err := c.Verify(got); !errors.Is(err, ErrChunk) {
			t.Errorf("Verify(chunk %d with a changed byte) = %v, want ErrChunk", c.Index, err)
		}
		if err := c.Verify(got[:c.RawLength-1]); !errors.Is(err, ErrChunk) {
			t.Errorf("Verify(chunk %d cut) = %v, want ErrChunk", c.Index, err)
		}
	}
}

func TestDecodeChunkRefuses(t *testing.T) {
	_, data, m := parsed(t)
	c := m.Chunks[0]
	frame := data[:c.Length]
	changed := bytes.Clone(frame)
	changed[len(changed)/2] ^= 1

	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	// as makes the chunk of any frame, with the right sum.
	as := func(frame []byte, rawLength int64) Chunk {
		return Chunk{Length: int64(len(frame)), Sum: HashChunk(frame), RawLength: rawLength}
	}
	bomb := enc.EncodeAll(make([]byte, 64*ChunkSize), nil)
	short := enc.EncodeAll(make([]byte, 512), nil)
	tests := []struct {
		name  string
		frame []byte
		chunk Chunk
	}{
		{"changed byte", changed, c},
		{"cut", frame[:len(frame)-1], c},
		{"nothing", nil, c},
		{"unpacks to far more", bomb, as(bomb, ChunkSize)},
		{"unpacks to more than a short chunk", short, as(short, 256)},
		{"unpacks to less", short, as(short, ChunkSize)},
		{"two frames", append(bytes.Clone(short), short...), as(append(bytes.Clone(short), short...), 512)},
		{"no zstd", []byte("hello"), as([]byte("hello"), 512)},
	}
	dec, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, ChunkSize)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := dec.DecodeChunk(buf, tt.frame, tt.chunk)
			if !errors.Is(err, ErrChunk) || raw != nil {
				t.Errorf("DecodeChunk = %d bytes, %v; want none and ErrChunk", len(raw), err)
			}
		})
	}
	if _, err := dec.DecodeChunk(buf, frame, c); err != nil {
		t.Errorf("DecodeChunk after bad frames = %v, want nil", err)
	}
}

// The decoder itself, as if an attacker could make sums.
func FuzzDecodeChunk(f *testing.F) {
	_, data, m := parsed(f)
	for _, c := range m.Chunks[1:] {
		f.Add(data[c.Offset:c.Offset+c.Length], c.RawLength)
	}
	f.Fuzz(func(t *testing.T, frame []byte, rawLength int64) {
		dec, err := NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := dec.decode(nil, frame, Chunk{RawLength: rawLength})
		if err == nil && int64(len(raw)) != rawLength {
			t.Fatalf("%d bytes and no error, want %d", len(raw), rawLength)
		}
	})
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 7, 64 << 10, 64<<10 + 1, 1 << 20} {
		b := make([]byte, n)
		if !IsZero(b) {
			t.Errorf("IsZero(%d zeros) = false, want true", n)
		}
		if n > 0 {
			b[n-1] = 1
			if IsZero(b) {
				t.Errorf("IsZero(%d bytes, the last is 1) = true, want false", n)
			}
		}
	}
}

func TestZstdProgramReadsData(t *testing.T) {
	testnet.Need(t, "zstd")
	raw, data, _ := parsed(t)
	path := filepath.Join(t.TempDir(), "disk.zst")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zstd", "-dc", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, raw) {
		t.Errorf("zstd -dc gives %d bytes that differ from the raw image of %d", len(out), len(raw))
	}
}

func BenchmarkDecodeChunk(b *testing.B) {
	_, data, m := parsed(b)
	dec, err := NewDecoder()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, ChunkSize)
	c := m.Chunks[0]
	b.SetBytes(c.RawLength)
	for b.Loop() {
		if _, err := dec.DecodeChunk(buf, data[c.Offset:c.Offset+c.Length], c); err != nil {
			b.Fatal(err)
		}
	}
}
