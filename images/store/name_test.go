package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/images"
)

// A name means what was imported last, also when an earlier import was stamped by a clock that was ahead.
func TestANameWhileTheClockIsSet(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := add(t, s, "debian", disk(1000, 1))
	ahead := time.Now().Add(240 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, a.ID, manifestFile), ahead, ahead); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	for i, seed := range []byte{2, 3, 2} { // the last is there already
		b := add(t, s, "debian", disk(1000, seed))
		if got, err := s.Get("debian"); err != nil || got.ID != b.ID {
			t.Errorf("import %d: Get(debian) = %s, %v, want %s", i, got.ID, err, b.ID)
		}
	}
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	a := add(t, s, "debian", disk(1000, 1))
	b := add(t, s, "debian", disk(1000, 2))
	current := func(want string) {
		t.Helper()
		got, err := s.Get("debian")
		if err != nil || got.ID != want || !got.Current {
			t.Errorf("Get(debian) = %s (current %v), %v; want %s", got.ID, got.Current, err, want)
		}
	}
	current(b.ID)
	if got, err := s.Get(a.ID[:8]); err != nil || got.ID != a.ID || got.Current {
		t.Errorf("Get(%s) = %+v, %v; want the older image", a.ID[:8], got, err)
	}
	// The same bytes again are the same image, and take the name back.
	if again := add(t, s, "debian", disk(1000, 1)); again.ID != a.ID {
		t.Errorf("imported again it is %s, want %s", again.ID, a.ID)
	}
	current(a.ID)
	if len(s.List()) != 2 {
		t.Errorf("%d images, want 2", len(s.List()))
	}
	// Another name shares the bytes.
	c := add(t, s, "bookworm", disk(1000, 1))
	first, _ := os.Stat(s.DataPath(a.ID))
	second, _ := os.Stat(s.DataPath(c.ID))
	if c.ID == a.ID || !os.SameFile(first, second) {
		t.Errorf("bookworm is %s and shares no bytes with %s", c.ID, a.ID)
	}
	if _, err := s.Delete("debian"); err != nil {
		t.Fatal(err)
	}
	current(b.ID)
	if got := readBack(t, s, c.ID); !bytes.Equal(got[:1000], disk(1000, 1)) {
		t.Error("bookworm lost its bytes with the image that it shared them with")
	}
	for _, ref := range []string{"nothing", "", a.ID, b.ID[:3]} {
		if _, err := s.Get(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get(%q) = %v, want ErrNotFound", ref, err)
		}
	}
	if _, err := s.Get("nothing"); !strings.Contains(err.Error(), "have: bookworm, debian") {
		t.Errorf("Get(nothing) = %v, want it to list what there is", err)
	}
	if got := visible(t, s); len(got) != 2 {
		t.Errorf("the directory holds %v, want the two images only", got)
	}
}

// A name that an image's id begins with would hide the image; a number is a date or a version.
func TestANameHidesNoID(t *testing.T) {
	s := open(t, t.TempDir())
	raw := disk(images.ChunkSize+5000, 1)
	first, err := s.Import(t.Context(), bytes.NewReader(raw), ImportOptions{Force: true, Name: "202611201000"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{first.ID[:4], strings.ToUpper(first.ID[:8])} {
		if _, err := s.Import(t.Context(), bytes.NewReader(raw),
			ImportOptions{Force: true, Name: name}); err == nil ||
			!strings.Contains(err.Error(), "the id of image "+first.ID[:12]+" begins so") {
			t.Errorf("import as %s: %v, want that an id begins so", name, err)
		}
	}
	if _, err := s.Import(t.Context(), bytes.NewReader(raw),
		ImportOptions{Force: true, Name: "cafe"}); err != nil && !strings.HasPrefix(first.ID, "cafe") {
		t.Errorf("import as cafe: %v", err)
	}
}
