package images

import (
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
)

// The output of b3sum, so that anybody can check an image against its manifest.
func TestHashIsThatOfB3sum(t *testing.T) {
	for _, c := range []struct {
		name, want string
		raw        []byte
	}{
		{"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85", []byte("abc")},
		{
			"a chunk of zeros", "04e52cd2da6a0e1f338b0078369130d96585c1de65057da5dd1283b12fb853e1",
			make([]byte, ChunkSize),
		},
	} {
		if got := HashChunk(c.raw).String(); got != c.want {
			t.Errorf("HashChunk(%s) = %s, want %s", c.name, got, c.want)
		}
	}
}

// The module's own hash gives the same for every shape of tree.
func TestHashChunkIsThatOfTheModule(t *testing.T) {
	raw := make([]byte, ChunkSize)
	for i := range raw {
		raw[i] = byte(rand.Uint32())
	}
	lengths := []int{
		0, 1, 63, 64, 65, 1023, 1024, 1025, leafSize - 1, leafSize, leafSize + 1, 3*leafSize - 1,
		ChunkSize - 1, ChunkSize,
	}
	for range 100 {
		lengths = append(lengths, rand.IntN(ChunkSize))
	}
	for _, n := range lengths {
		if got, want := HashChunk(raw[:n]), Hash(blake3.Sum256(raw[:n])); got != want {
			t.Errorf("HashChunk of %d bytes = %s, want %s", n, got, want)
		}
	}
}

func BenchmarkHashChunk(b *testing.B) {
	raw := make([]byte, ChunkSize)
	b.SetBytes(ChunkSize)
	b.ReportAllocs()
	for b.Loop() {
		HashChunk(raw)
	}
}
