package store

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pxectl/pxectl/images"
)

func verified(t *testing.T, s *Store, ref string) Verdict {
	t.Helper()
	var last Progress
	v, err := s.Verify(t.Context(), ref, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	if last.Phase != "verify" || last.Done != v.Image.RawSize || last.Total != v.Image.RawSize {
		t.Errorf("the last progress is %+v, want all %d bytes verified", last, v.Image.RawSize)
	}
	return v
}

func TestVerify(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(5*images.ChunkSize+512, 1)
	info := add(t, s, "x", src)
	if v := verified(t, s, "x"); v.Damaged != 0 || len(v.Damage) != 0 {
		t.Errorf("Verify(a good image) = %+v, want no damage", v)
	}
	_, m, err := s.Manifest(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(s.DataPath(info.ID))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int64) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x10
		return b
	}
	tests := []struct {
		name   string
		data   []byte
		chunks []int // -1: not in a chunk
		reason string
	}{
		{"first byte", flip(0), []int{0}, "chunk 0: blake3 of the frame"},
		{"in the last chunk", flip(m.Chunks[5].Offset + 20), []int{5}, "chunk 5"},
		{"seek table", flip(m.DataSize - 30), []int{-1}, "seek table"},
		{"cut in the middle", good[:m.Chunks[4].Offset+1], []int{4, 5, -1}, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(s.DataPath(info.ID), tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			v := verified(t, s, "x")
			var chunks []int
			for _, d := range v.Damage {
				chunks = append(chunks, d.Chunk)
			}
			if len(chunks) != len(tt.chunks) || v.Damaged != len(chunks) {
				t.Fatalf("damaged are %v (%d), want %v", chunks, v.Damaged, tt.chunks)
			}
			for i, d := range v.Damage {
				if d.Chunk != tt.chunks[i] || d.Chunk >= 0 && d.RawOffset != m.Chunks[d.Chunk].RawOffset {
					t.Errorf("damage %d is %+v, want chunk %d", i, d, tt.chunks[i])
				}
			}
			if !strings.Contains(v.Damage[0].Reason, tt.reason) {
				t.Errorf("the reason is %q, want it to contain %q", v.Damage[0].Reason, tt.reason)
			}
		})
	}

	t.Run("manifest", func(t *testing.T) {
		path := strings.TrimSuffix(s.DataPath(info.ID), dataFile) + manifestFile
		manifest, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(manifest, ' '), 0o644); err != nil {
			t.Fatal(err)
		}
		v, err := s.Verify(t.Context(), "x", nil)
		if err != nil || len(v.Damage) != 1 || !strings.Contains(v.Damage[0].Reason, "not the image's id") {
			t.Errorf("Verify = %+v, %v; want the manifest damaged", v, err)
		}
		if err := os.WriteFile(path, manifest, 0o644); err != nil {
			t.Fatal(err)
		}
	})

	// Another import of the same disk, under any name, repairs the data, and the store still has one copy.
	other := add(t, s, "y", src)
	for _, ref := range []string{"x", "y"} {
		if v := verified(t, s, ref); v.Damaged != 0 {
			t.Errorf("%s after the import of the same disk: %+v", ref, v)
		}
	}
	if !sameData(t, s, info, other) {
		t.Error("the two names hold two copies")
	}
	if err := os.WriteFile(s.DataPath(info.ID), flip(7), 0o644); err != nil { // both, as it is one file
		t.Fatal(err)
	}
	add(t, s, "x", src)
	for _, ref := range []string{"x", "y"} {
		if v := verified(t, s, ref); v.Damaged != 0 {
			t.Errorf("%s after the import of the same disk under the same name: %+v", ref, v)
		}
	}
	if !sameData(t, s, info, other) {
		t.Error("the two names hold two copies")
	}
}

func sameData(t *testing.T, s *Store, a, b Info) bool {
	t.Helper()
	x, err := os.Stat(s.DataPath(a.ID))
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(s.DataPath(b.ID))
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

// Several imports of the same disk at once give one image for each name, and one copy of the data.
func TestImportTwiceAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(3*images.ChunkSize, 1)
	names := []string{"x", "x", "y", "y"}
	infos := make([]Info, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			var err error
			if infos[i], err = s.Import(t.Context(), bytes.NewReader(src),
				ImportOptions{Force: true, Name: name}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if infos[0].ID != infos[1].ID || infos[2].ID != infos[3].ID || infos[0].ID == infos[2].ID {
		t.Errorf("ids %v, want one for each name", infos)
	}
	if len(s.List()) != 2 || len(visible(t, s)) != 2 || !sameData(t, s, infos[0], infos[2]) {
		t.Errorf("%d images in %v; want two that share one file", len(s.List()), visible(t, s))
	}
	if got := readBack(t, s, infos[2].ID); !bytes.Equal(got, src) {
		t.Error("it reads back differently")
	}
}
