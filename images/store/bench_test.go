package store

import (
	"bytes"
	"os"
	"testing"

	"github.com/pxectl/pxectl/images"
)

// BenchmarkImport packs the file that PXECTL_BENCH_IMAGE names, or some made-up text of 64 MiB.
func BenchmarkImport(b *testing.B) {
	src := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), 64<<20/44)
	if path := os.Getenv("PXECTL_BENCH_IMAGE"); path != "" {
		var err error
		if src, err = os.ReadFile(path); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(src)))
	var info Info
	for b.Loop() {
		s := open(b, b.TempDir())
		info = add(b, s, "x", src)
		s.Close()
	}
	b.ReportMetric(float64(info.DataSize)/float64(info.RawSize), "stored/raw")
}

func BenchmarkIsZero(b *testing.B) {
	chunk := make([]byte, images.ChunkSize)
	b.SetBytes(images.ChunkSize)
	for b.Loop() {
		images.IsZero(chunk)
	}
}
