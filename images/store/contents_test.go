package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/images"
)

// exampleDisk is the image of the tests of package contents.
func exampleDisk(t *testing.T) []byte {
	t.Helper()
	packed, err := os.ReadFile("../contents/testdata/disk.img.zst")
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	disk, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func TestImportSaysWhatIsInside(t *testing.T) {
	s := open(t, t.TempDir())
	info := add(t, s, "x", exampleDisk(t))
	if want := (images.Contents{PartitionTable: "gpt", Partitions: 2, UEFI: true}); info.Contents != want {
		t.Errorf("Contents = %+v, want %+v", info.Contents, want)
	}
	if sys := info.System; sys == nil || sys.OS != "example" || sys.Architecture != "arm64" ||
		sys.CloudInit == nil || !*sys.CloudInit {
		t.Errorf("System = %+v, want example on arm64 with cloud-init", sys)
	}
	s.Close()
	again := open(t, s.dir)
	if diff := cmp.Diff(s.List(), again.List()); diff != "" {
		t.Errorf("opened again (-before +after):\n%s", diff)
	}

	// An image without the file stays usable.
	if err := os.WriteFile(filepath.Join(s.dir, info.ID, systemFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	again.Close()
	third := open(t, s.dir)
	if got, err := third.Get("x"); err != nil || got.System != nil {
		t.Errorf("with a damaged %s: %+v, %v; want the image without what was in it", systemFile, got.System,
			err)
	}
	if got := add(t, third, "x", exampleDisk(t)); got.ID != info.ID || got.System == nil {
		t.Errorf("imported again it is %s with %+v, want %s with what is in it", got.ID, got.System, info.ID)
	}
}

func TestUnpacked(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(9*images.ChunkSize+512, 1)
	info := add(t, s, "x", src)
	_, m, err := s.Manifest(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(s.DataPath(info.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := newUnpacked(f, packed{chunks: m.Chunks, rawSize: m.RawSize})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range [][2]int64{
		{0, 10},
		{images.ChunkSize - 1, 2},
		{3 * images.ChunkSize, 2 * images.ChunkSize},
		{m.RawSize - 5, 5},
	} {
		got := make([]byte, at[1])
		if n, err := u.ReadAt(got, at[0]); n != len(got) || err != nil ||
			!bytes.Equal(got, src[at[0]:at[0]+at[1]]) {
			t.Errorf("ReadAt(%d bytes at %d) = %d, %v, or other bytes", at[1], at[0], n, err)
		}
	}
	if n, err := u.ReadAt(make([]byte, 10), m.RawSize-5); n != 5 || err == nil {
		t.Errorf("ReadAt beyond the end = %d, %v; want 5 and an error", n, err)
	}
	for range 2 * maxUnpacked {
		if _, err = u.ReadAt(make([]byte, images.ChunkSize+1), 0); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("there is no end to looking")
	}
}
