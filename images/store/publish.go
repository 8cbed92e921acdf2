package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/atomicfile"
)

// publish makes the finished image in temp visible, or finds that the store has it already.
func (s *Store) publish(temp string, m *images.Manifest) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var same *Info
	raw := m.RawHash()
	for _, twin := range s.images {
		if twin.RawHash != raw {
			continue
		}
		if err := s.shareLocked(filepath.Join(temp, dataFile), m, twin.ID); err != nil {
			return Info{}, err
		}
		if twin.Name == m.Name {
			same = &twin
		}
	}
	if same != nil {
		// This release may read more of an image than the one that imported it.
		if err := os.Rename(filepath.Join(temp, systemFile),
			filepath.Join(s.dir, same.ID, systemFile)); err != nil {
			return Info{}, err
		}
		return s.touchLocked(*same)
	}
	encoded, err := m.Encode()
	if err != nil {
		return Info{}, err
	}
	id := images.ID(encoded)
	if err := writeSynced(filepath.Join(temp, manifestFile), encoded); err != nil {
		return Info{}, err
	}
	now := s.newestLocked(m.Name)
	if err := errors.Join(os.Chtimes(filepath.Join(temp, manifestFile), now, now), os.Chmod(temp, 0o755),
		atomicfile.SyncDir(temp)); err != nil {
		return Info{}, err
	}
	final := filepath.Join(s.dir, id)
	if err := os.Rename(temp, final); err != nil {
		return Info{}, fmt.Errorf("%w (a damaged image of this id may be in the way: delete %s)", err, final)
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return Info{}, err
	}
	info, err := s.read(id)
	if err != nil {
		return Info{}, err
	}
	info.Current = true
	s.images[id] = info
	return info, nil
}

// shareLocked makes one file of the data of the new image and of an image with the same disk.
func (s *Store) shareLocked(data string, m *images.Manifest, twin string) error {
	_, tm, err := s.Manifest(twin)
	if err != nil {
		s.log.Error("image cannot share its bytes", "id", twin, "err", err)
		return nil
	}
	sameFrame := func(a, b images.Chunk) bool {
		return a.Sum == b.Sum && a.Offset == b.Offset && a.Length == b.Length
	}
	link := filepath.Join(s.dir, tempPrefix+"link-"+twin)
	if slices.EqualFunc(tm.Chunks, m.Chunks, sameFrame) {
		// Ours has just been hashed, so it repairs whatever the other file has lost on its medium.
		return errors.Join(os.Link(data, link), os.Rename(link, s.DataPath(twin)))
	}
	// The other image was compressed by another version. Its chunks come with its bytes.
	m.DataSize, m.Chunks = tm.DataSize, tm.Chunks
	return errors.Join(os.Link(s.DataPath(twin), link), os.Rename(link, data))
}

// newestLocked returns the time of import for the newest image of a name: now, or a second after the others
// when the clock was ahead as they came.
func (s *Store) newestLocked(name string) time.Time {
	now := time.Now()
	for _, other := range s.images {
		if other.Name == name && !other.ImportedAt.Before(now) {
			now = other.ImportedAt.Add(time.Second)
		}
	}
	return now
}

// touchLocked gives an image its name back: it becomes the newest image of that name.
func (s *Store) touchLocked(info Info) (Info, error) {
	now := s.newestLocked(info.Name)
	if err := os.Chtimes(filepath.Join(s.dir, info.ID, manifestFile), now, now); err != nil {
		return Info{}, err
	}
	info, err := s.read(info.ID)
	if err != nil {
		return Info{}, err
	}
	s.images[info.ID] = info
	info.Current = true
	return info, nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
