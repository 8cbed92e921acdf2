package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/google/go-cmp/cmp"

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

func TestImportRaw(t *testing.T) {
	const chunk = images.ChunkSize
	for name, n := range map[string]int{
		"one byte": 1, "one sector": 512, "odd": 1000, "one chunk": chunk, "chunk and a byte": chunk + 1,
		"chunk less a sector": chunk - 512, "several": 9*chunk + 777,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			src := disk(n, 1)
			info := add(t, s, "x", src)
			want := append(bytes.Clone(src), make([]byte, -n&511)...)
			if got := readBack(t, s, info.ID); !bytes.Equal(got, want) {
				t.Errorf("the image reads back as %d bytes that differ from the %d imported", len(got), len(want))
			}
			if info.RawSize != int64(len(want)) {
				t.Errorf("RawSize = %d, want %d", info.RawSize, len(want))
			}
			// A new Store finds the whole catalogue on the disk.
			s.Close()
			if diff := cmp.Diff(s.List(), open(t, s.dir).List()); diff != "" {
				t.Errorf("opened again (-before +after):\n%s", diff)
			}
		})
	}
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
		if !ok || e.CompressedOffset != uint64(c.Offset) || e.DecompressedOffset != uint64(c.RawOffset) || int64(e.DecompressedSize) != c.RawLength {
			t.Errorf("table entry %d is %+v, want %+v", c.Index, e, c)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	raw := disk(images.ChunkSize+5000, 1)
	tests := []struct {
		name string
		src  io.Reader
		opt  ImportOptions
		want string
	}{
		{"empty", strings.NewReader(""), ImportOptions{Force: true, Name: "x"}, "the source is empty"},
		{"wrong checksum", bytes.NewReader(raw), ImportOptions{Force: true, Name: "x", SHA256: strings.Repeat("ab", 32)}, "want abababab"},
		{"checksum that is none", bytes.NewReader(raw), ImportOptions{Force: true, Name: "x", SHA256: "abc"}, "want 64 hex digits"},
		{"no name", bytes.NewReader(raw), ImportOptions{}, "image name: empty"},
		{"bad name", bytes.NewReader(raw), ImportOptions{Force: true, Name: "../../etc"}, "image name"},
		{"a name like an id", bytes.NewReader(raw), ImportOptions{Force: true, Name: "4bdb08512bba"}, "looks like an id"},
		{"unknown format", bytes.NewReader(raw), ImportOptions{Force: true, Name: "x", Format: "vmdk"}, "format \"vmdk\""},
		{"no qcow2", bytes.NewReader(raw), ImportOptions{Force: true, Name: "x", Format: "qcow2"}, "qcow2: no header"},
		{"VMDK", strings.NewReader("KDMV" + strings.Repeat("\x00", 600)), ImportOptions{Force: true, Name: "x"}, "qemu-img convert"},
		{"tar", strings.NewReader(strings.Repeat("\x00", 257) + "ustar" + strings.Repeat("\x00", 600)), ImportOptions{Force: true, Name: "x"}, "tar archive"},
		{"web page", strings.NewReader("\n<!DOCTYPE html><html>404"), ImportOptions{Force: true, Name: "x"}, "web page"},
		{"source fails", io.MultiReader(bytes.NewReader(raw), failing{}), ImportOptions{Force: true, Name: "x"}, "at byte 4199304: connection reset"},
		{"source is cut", io.MultiReader(bytes.NewReader(raw), cutting{}), ImportOptions{Force: true, Name: "x"}, "unexpected EOF"},
		{"source ends in an error that wraps EOF", io.MultiReader(bytes.NewReader(raw), wrapping{}), ImportOptions{Force: true, Name: "x"}, "proxy: EOF"},
		{"source panics", io.MultiReader(bytes.NewReader(raw), panicking{}), ImportOptions{Force: true, Name: "x"}, "gave up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			_, err := s.Import(t.Context(), tt.src, tt.opt)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Import = %v, want an error with %q", err, tt.want)
			}
			if got := visible(t, s); len(got) != 0 || len(s.List()) != 0 {
				t.Errorf("the store holds %v, want nothing", got)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// cutting ends like the body of a cut HTTP answer.
type cutting struct{}

func (cutting) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type wrapping struct{}

func (wrapping) Read([]byte) (int, error) { return 0, fmt.Errorf("proxy: %w", io.EOF) }

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("index out of range") }

func TestImportChecksTheSource(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(5000, 1)
	sum := sha256.Sum256(src)
	var last Progress
	info, err := s.Import(t.Context(), bytes.NewReader(src), ImportOptions{
		Force: true,
		Name:  "x", SHA256: " " + strings.ToUpper(hex.EncodeToString(sum[:])) + "\n", Size: 5000, Progress: func(p Progress) { last = p },
	})
	if err != nil {
		t.Fatal(err)
	}
	if last.Done != 5000 || last.Total != 5000 || last.Raw != info.RawSize || last.Phase != "receive" {
		t.Errorf("last progress is %+v, want all of it done", last)
	}
}

// endless returns random bytes for ever, and cancels after some of them.
type endless struct {
	rng    *rand.ChaCha8
	left   int
	cancel func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left -= len(p); e.left < 0 {
		e.cancel()
	}
	return e.rng.Read(p)
}

func TestCancelLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Import(ctx, &endless{rand.NewChaCha8([32]byte{}), 20 << 20, cancel}, ImportOptions{Force: true, Name: "x"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Import = %v, want context.Canceled", err)
	}
	if got := visible(t, s); len(got) != 0 {
		t.Errorf("the store holds %v, want nothing", got)
	}
}

func TestOpenClearsAndDoubts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	whole, short, changed := add(t, s, "whole", disk(3000, 1)), add(t, s, "short", disk(3000, 2)), add(t, s, "changed", disk(3000, 3))
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use by another process") {
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
	if err := os.WriteFile(path, bytes.Replace(manifest, []byte("changed"), []byte("changes"), 1), 0o644); err != nil {
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
