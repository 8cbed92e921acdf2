package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// testImage makes an image of random, zero and short chunks, and its manifest.
func testImage(t testing.TB) (raw, data []byte, m *Manifest) {
	t.Helper()
	raw = make([]byte, 2*ChunkSize+1536)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(raw[:ChunkSize/2])
	_, _ = rng.Read(raw[2*ChunkSize:])
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m = &Manifest{
		Format: Format, Name: "test-1", RawSize: int64(len(raw)), SectorSize: 512, ChunkSize: ChunkSize,
		HashName: HashName,
	}
	for off := 0; off < len(raw); off += ChunkSize {
		piece := raw[off:min(off+ChunkSize, len(raw))]
		frame := enc.EncodeAll(piece, nil)
		m.Chunks = append(m.Chunks, Chunk{
			Offset: int64(len(data)), Length: int64(len(frame)), Sum: HashChunk(frame),
			Hash: HashChunk(piece), Zero: IsZero(piece),
			RawLength: int64(len(piece)),
		})
		data = append(data, frame...)
	}
	data = append(data, SeekTable(m.Chunks)...)
	m.DataSize = int64(len(data))
	return raw, data, m
}

func TestManifestRoundTrip(t *testing.T) {
	_, _, m := testImage(t)
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("Parse(Encode(m)) differs (-want +got):\n%s", diff)
	}
	last := got.Chunks[2]
	if last.RawOffset != 2*ChunkSize || last.RawLength != 1536 || last.Index != 2 {
		t.Errorf("last chunk is %+v, want index 2, 1536 bytes at %d", last, 2*ChunkSize)
	}
	again, _ := got.Encode()
	if !bytes.Equal(again, encoded) {
		t.Error("encoding a parsed manifest gives other bytes, and so another id")
	}
	if got.ZeroBytes() != ChunkSize {
		t.Errorf("ZeroBytes() = %d, want %d", got.ZeroBytes(), ChunkSize)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(m map[string]any, chunks []any)
		want   string
	}{
		{
			"other format", func(m map[string]any, _ []any) { m["format"] = 1 },
			"format 1, this version reads 2; import the image again",
		},
		{"no format", func(m map[string]any, _ []any) { delete(m, "format") }, "not an image manifest"},
		{"unknown field", func(m map[string]any, _ []any) { m["extra"] = 1 }, "unknown field"},
		{
			"unknown field of a chunk", func(_ map[string]any, c []any) { c[0].(map[string]any)["x"] = 1 },
			"unknown field",
		},
		{"name with a slash", func(m map[string]any, _ []any) { m["name"] = "../x" }, "image name"},
		{
			"size not in sectors", func(m map[string]any, _ []any) { m["raw_size"] = 2*ChunkSize + 1000 },
			"raw_size",
		},
		{"negative size", func(m map[string]any, _ []any) { m["raw_size"] = -512 }, "raw_size"},
		{
			"absurd size", func(m map[string]any, _ []any) { m["raw_size"] = int64(MaxRawSize) + 512 },
			"raw_size",
		},
		{
			"more chunks than size", func(m map[string]any, _ []any) { m["raw_size"] = ChunkSize },
			"chunks 3, want 1",
		},
		{
			"fewer chunks than size", func(m map[string]any, c []any) { m["chunks"] = c[:2] },
			"chunks 2, want 3",
		},
		{"no chunks", func(m map[string]any, _ []any) { m["chunks"] = nil }, "not a list"},
		{"other chunk size", func(m map[string]any, _ []any) { m["chunk_size"] = 1 << 20 }, "chunk_size"},
		{"other hash", func(m map[string]any, _ []any) { m["chunk_hash"] = "md5" }, "chunk_hash"},
		{"odd sectors", func(m map[string]any, _ []any) { m["sector_size"] = 520 }, "sector_size"},
		{
			"overlapping frames", func(_ map[string]any, c []any) { c[1].(map[string]any)["offset"] = 0 },
			"chunk 1: offset 0",
		},
		{
			"negative offset", func(_ map[string]any, c []any) { c[0].(map[string]any)["offset"] = -1 },
			"chunk 0: offset -1",
		},
		{
			"empty frame", func(_ map[string]any, c []any) { c[0].(map[string]any)["length"] = 0 },
			"chunk 0: length 0",
		},
		{
			"frame larger than any",
			func(_ map[string]any, c []any) { c[0].(map[string]any)["length"] = 2 * ChunkSize },
			"chunk 0: length",
		},
		{"data shorter than frames", func(m map[string]any, _ []any) { m["data_size"] = 10 }, "data_size 10"},
		{
			"short hash", func(_ map[string]any, c []any) { c[0].(map[string]any)["hash"] = "abcd" },
			"want 64 hex digits",
		},
		{
			"no sum", func(_ map[string]any, c []any) { delete(c[0].(map[string]any), "sum") },
			"sum is missing",
		},
		{
			"data said to be zero", func(_ map[string]any, c []any) { c[0].(map[string]any)["zero"] = true },
			"said to be zero",
		},
		{"null chunk", func(_ map[string]any, c []any) { c[0] = nil }, "chunk 0"},
		{
			"odd partition table",
			func(m map[string]any, _ []any) { m["contents"] = map[string]any{"partition_table": "bsd"} },
			"partition_table",
		},
	}
	_, _, valid := testImage(t)
	encoded, err := valid.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m map[string]any
			if err := json.Unmarshal(encoded, &m); err != nil {
				t.Fatal(err)
			}
			tt.change(m, m["chunks"].([]any))
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = Parse(data); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, want an error with %q", err, tt.want)
			}
		})
	}
	for name, data := range map[string]string{
		"empty": "", "not JSON": "disk", "trailing": string(encoded) + "{}",
		"list of nothing": `{"format":1,"chunks":[` + strings.Repeat("{},", 1000) + `{}]}`,
	} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("%s: Parse = nil error, want one", name)
		}
	}
	if _, err := Parse(make([]byte, MaxManifest+1)); err == nil ||
		!strings.Contains(err.Error(), "more than") {
		t.Errorf("Parse of too many bytes = %v, want an error that says so", err)
	}
}

func TestLargestManifestFits(t *testing.T) {
	c := Chunk{Offset: MaxRawSize, Length: maxFrame, Zero: false}
	one, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if n := (len(one) + 1) * MaxRawSize / ChunkSize; n > MaxManifest-(1<<16) {
		t.Errorf("the manifest of the largest image takes %d bytes, want less than MaxManifest = %d", n,
			MaxManifest)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"debian-12": true, "Ubuntu_24.04+x": true, "a": true, "12": true,
		"": false, "-rf": false, ".hidden": false, "a/b": false, "a b": false, "é": false,
		strings.Repeat("a", MaxName+1): false, strings.Repeat("ab", 32): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v, want ok %v", name, err, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	_, _, m := testImage(f)
	encoded, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		// A manifest that Parse accepts has its properties.
		var end, raw int64
		for i, c := range m.Chunks {
			if c.Offset != end || c.Length <= 0 || c.RawOffset != raw || c.RawLength <= 0 ||
				c.RawLength > ChunkSize || c.Index != i {
				t.Fatalf("chunk %d is %+v, want it at %d and %d", i, c, end, raw)
			}
			end, raw = end+c.Length, raw+c.RawLength
		}
		if raw != m.RawSize || end > m.DataSize {
			t.Fatalf("chunks hold %d raw bytes in %d, the manifest says %d in %d", raw, end, m.RawSize,
				m.DataSize)
		}
		encoded, err := m.Encode()
		if err != nil {
			t.Fatalf("Encode of a parsed manifest: %v", err)
		}
		again, err := Parse(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("parse, build, parse differs:\n%s", diff)
		}
	})
}

func ExampleID() {
	fmt.Println(ID([]byte("{}\n"))[:16])
	// Output: ca3d163bab055381
}
