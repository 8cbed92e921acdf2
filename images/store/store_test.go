package store

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// disk is an image of n bytes: random, then zero, then random again to the end.
func disk(n int, seed byte) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{seed})
	_, _ = rng.Read(b[:n/4])
	_, _ = rng.Read(b[n-n/8:])
	return b
}

func add(t testing.TB, s *Store, name string, src []byte) Info {
	t.Helper()
	info, err := s.Import(t.Context(), bytes.NewReader(src), ImportOptions{Force: true, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// readBack decodes the whole image as the agent would.
func readBack(t testing.TB, s *Store, id string) []byte {
	t.Helper()
	encoded, m, err := s.Manifest(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := images.ID(encoded); got != id {
		t.Errorf("manifest of %s has the id %s", id, got)
	}
	data, err := os.ReadFile(s.DataPath(id))
	if err != nil {
		t.Fatal(err)
	}
	dec, err := images.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for _, c := range m.Chunks {
		piece, err := dec.DecodeChunk(nil, data[c.Offset:c.Offset+c.Length], c)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(piece); err != nil {
			t.Fatal(err)
		}
		if c.Zero != images.IsZero(piece) {
			t.Errorf("chunk %d: Zero is %v", c.Index, c.Zero)
		}
		raw = append(raw, piece...)
	}
	return raw
}

// visible lists the store's directory.
func visible(t testing.TB, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != lockFile {
			names = append(names, e.Name())
		}
	}
	return names
}

// Another reader of the seekable format finds every byte through our table.
func TestSeekTableIsSeekable(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(3*images.ChunkSize+512, 1)
	info := add(t, s, "x", src)
	data, err := os.ReadFile(s.DataPath(info.ID))
	if err != nil {
		t.Fatal(err)
	}
	_, m, err := s.Manifest(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	last := m.Chunks[len(m.Chunks)-1]
	table, err := seekable.NewSeekTable(data[last.Offset+last.Length:])
	if err != nil {
		t.Fatal(err)
	}
	if table.NumFrames() != 4 || table.Size() != uint64(len(src)) {
		t.Fatalf("table has %d frames of %d bytes, want 4 of %d", table.NumFrames(), table.Size(), len(src))
	}
	for _, c := range m.Chunks {
		e, ok := table.EntryByID(int64(c.Index))
		if !ok || e.CompressedOffset != uint64(c.Offset) || e.DecompressedOffset != uint64(c.RawOffset) ||
			int64(e.DecompressedSize) != c.RawLength {
			t.Errorf("table entry %d is %+v, want %+v", c.Index, e, c)
		}
	}
}

func TestOpenClearsAndDoubts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	whole, short, changed := add(t, s, "whole", disk(3000, 1)), add(t, s, "short", disk(3000, 2)),
		add(t, s, "changed", disk(3000, 3))
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil ||
		!strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second Open = %v, want an error that says so", err)
	}
	s.Close()

	if err := os.MkdirAll(filepath.Join(dir, "tmp-import-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp-import-1", dataFile), disk(100, 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.DataPath(short.ID), 100); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, changed.ID, manifestFile)
	manifest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path,
		bytes.Replace(manifest, []byte("changed"), []byte("changes"), 1), 0o644); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	s, err = Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if list := s.List(); len(list) != 1 || list[0].ID != whole.ID {
		t.Errorf("List() = %+v, want the whole image only", list)
	}
	if _, err := os.Stat(filepath.Join(dir, "tmp-import-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover import is still there: %v", err)
	}
	for _, id := range []string{short.ID, changed.ID} {
		if !strings.Contains(log.String(), id) {
			t.Errorf("the log does not name the damaged image %s:\n%s", id, &log)
		}
	}
}
