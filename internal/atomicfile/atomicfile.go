// Package atomicfile writes files that are complete or absent, even after a power cut.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path. When it returns nil, data and name are on the disk.
func Write(path string, data []byte, mode fs.FileMode) error {
	f, err := Replace(path, data, mode)
	if err != nil {
		return err
	}
	return f.Close()
}

// Replace is Write for a file that more will be written to: it is returned open, at its end. After an error the
// file at path is whole, the old one or the new one.
func Replace(path string, data []byte, mode fs.FileMode) (*os.File, error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(dir)
	}
	if err != nil {
		f.Close()
		_ = os.Remove(f.Name()) // unless it is renamed
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return f, nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
