package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/images/contents"
	"github.com/pxectl/pxectl/internal/atomicfile"
)

// ErrNotFound is wrapped when no image has the given name or id.
var ErrNotFound = errors.New("no such image")

const (
	manifestFile = "manifest.json"
	dataFile     = "disk.zst"
	tempPrefix   = "tmp-"
	lockFile     = "lock"
)

// Info is an image in a list.
type Info struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Current    bool            `json:"current"` // the name means this image, not an older one
	RawSize    int64           `json:"raw_size"`
	ZeroBytes  int64           `json:"zero_bytes"`
	DataSize   int64           `json:"data_size"`
	SectorSize int             `json:"sector_size"`
	RawHash    images.Hash     `json:"raw_hash"` // the same for images of the same disk, whatever their names
	Contents   images.Contents `json:"contents"`
	ImportedAt time.Time       `json:"imported_at"`

	System *contents.Software `json:"system,omitempty"` // nil: unknown
}

// A Store is a directory of images. One process at a time may have it open. Several goroutines can call its
// methods at once.
type Store struct {
	dir  string
	log  *slog.Logger
	lock *os.File

	mu     sync.RWMutex
	images map[string]Info // by id; Current is computed when asked for
}

// Open opens the store in dir, creates it when it is missing, and removes leftovers of a crash. It logs a
// damaged image and leaves it in place, unlisted.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	// Lock a file of our own: whoever may read a directory may lock it.
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("image store %s: in use by another process: %w", dir, err)
	}
	s := &Store{dir: dir, log: log, lock: lock, images: make(map[string]Info)}
	if err := s.load(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("image store %s: %w", dir, err)
	}
	return s, nil
}

// Close lets another process open the store. Imports must have ended.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix):
			s.log.Info("removing what an interrupted import or deletion left", "path", path)
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		case isID(e.Name()) && e.IsDir():
			info, err := s.read(e.Name())
			if err != nil {
				s.log.Error("damaged image is not listed; delete its directory and import it again",
					"path", path, "err", err)
				continue
			}
			s.images[info.ID] = info
		}
	}
	return nil
}

// read reads the directory of id and makes the cheap checks.
func (s *Store) read(id string) (Info, error) {
	_, m, err := s.Manifest(id)
	if err != nil {
		return Info{}, err
	}
	data, err := os.Stat(s.DataPath(id))
	if err != nil {
		return Info{}, err
	}
	if data.Size() != m.DataSize {
		return Info{}, fmt.Errorf("%s holds %d bytes, its manifest says %d", s.DataPath(id), data.Size(),
			m.DataSize)
	}
	manifest, err := os.Stat(filepath.Join(s.dir, id, manifestFile))
	if err != nil {
		return Info{}, err
	}
	info := newInfo(id, m, manifest.ModTime())
	info.System = s.loadSystem(id)
	return info, nil
}

func newInfo(id string, m *images.Manifest, at time.Time) Info {
	return Info{
		ID: id, Name: m.Name, RawSize: m.RawSize, ZeroBytes: m.ZeroBytes(), DataSize: m.DataSize,
		SectorSize: m.SectorSize, RawHash: m.RawHash(), Contents: m.Contents, ImportedAt: at.UTC(),
	}
}

// List lists all images by name, those of one name newest first.
func (s *Store) List() []Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listLocked()
}

func (s *Store) listLocked() []Info {
	list := make([]Info, 0, len(s.images))
	for _, info := range s.images {
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Info) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := b.ImportedAt.Compare(a.ImportedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	for i := range list {
		list[i].Current = i == 0 || list[i-1].Name != list[i].Name
	}
	return list
}

// minPrefix is the shortest prefix of an id that Get accepts.
const minPrefix = 4

// Get finds an image by its name, its id, or a unique prefix of its id. A name goes before an id.
func (s *Store) Get(ref string) (Info, error) {
	list := s.List()
	var byID []Info
	for _, info := range list {
		if info.Name == ref && info.Current {
			return info, nil
		}
		if len(ref) >= minPrefix && strings.HasPrefix(info.ID, strings.ToLower(ref)) {
			byID = append(byID, info)
		}
	}
	switch {
	case len(byID) == 1:
		return byID[0], nil
	case len(byID) > 1:
		return Info{}, fmt.Errorf("image %q: %d images have an id that begins so (%s, %s, …); "+
			"give more of it", ref, len(byID), byID[0].ID[:16], byID[1].ID[:16])
	}
	return Info{}, fmt.Errorf("image %q: %w (have: %s)", ref, ErrNotFound, names(list))
}

// names lists the names of all images, for an error.
func names(list []Info) string {
	const most = 12
	var all []string
	for _, info := range list {
		if info.Current {
			all = append(all, info.Name)
		}
	}
	switch {
	case len(all) == 0:
		return "none"
	case len(all) > most:
		return strings.Join(all[:most], ", ") + ", …"
	}
	return strings.Join(all, ", ")
}

// Delete deletes the image that Get finds. Running downloads finish, as they have the file open. An older
// image of the same name gets the name back.
func (s *Store) Delete(ref string) (Info, error) {
	info, err := s.Get(ref)
	if err != nil {
		return Info{}, err
	}
	trash, err := os.MkdirTemp(s.dir, tempPrefix+"delete-")
	if err != nil {
		return Info{}, fmt.Errorf("delete image %s: %w", info.Name, err)
	}
	s.mu.Lock()
	err = os.Rename(filepath.Join(s.dir, info.ID), filepath.Join(trash, info.ID))
	if err == nil {
		delete(s.images, info.ID)
	}
	s.mu.Unlock()
	err = errors.Join(err, atomicfile.SyncDir(s.dir), os.RemoveAll(trash))
	if err != nil {
		return Info{}, fmt.Errorf("delete image %s: %w", info.Name, err)
	}
	s.log.Info("image deleted", "name", info.Name, "id", info.ID)
	return info, nil
}

// Manifest returns the stored manifest of an image, whose sha256 is the id, and the parsed one.
func (s *Store) Manifest(id string) ([]byte, *images.Manifest, error) {
	f, err := s.OpenManifest(id)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, images.MaxManifest+1))
	if err != nil {
		return nil, nil, err
	}
	m, got, err := images.Read(bytes.NewReader(data))
	if got != "" && got != id { // empty when it is larger than any manifest
		return nil, nil, fmt.Errorf("%s: its sha256 is %s, not the image's id: the file is damaged", f.Name(),
			got)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return data, m, nil
}

// OpenManifest opens the stored manifest of an image, which is not checked: who reads it knows its sha256.
func (s *Store) OpenManifest(id string) (*os.File, error) {
	if !isID(id) {
		return nil, fmt.Errorf("image id %.80q: want 64 hex digits: %w", id, ErrNotFound)
	}
	f, err := os.Open(filepath.Join(s.dir, id, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("image %s: %w", id, ErrNotFound)
	}
	return f, err
}

// DataPath is the path of the image's disk.zst.
func (s *Store) DataPath(id string) string { return filepath.Join(s.dir, id, dataFile) }

// isID says whether s has the form of an id, and so is safe in a path.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
