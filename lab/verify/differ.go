package verify

import (
	"fmt"
	"os"
)

// A Difference counts the chunks of an image that a disk lacks.
type Difference struct {
	Chunks int    // of the image
	Differ int    // chunks that are not on the disk
	Fetch  int    // those of them that hold data
	Bytes  uint64 // of disk.zst that hold these
}

// Differ compares the chunks of an image with their places on a disk. store is the appliance's image
// directory.
func Differ(path, store, imageID string) (d Difference, err error) {
	m, err := manifest(store, imageID)
	if err != nil {
		return d, err
	}
	disk, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer disk.Close()
	d.Chunks = len(m.Chunks)
	buf := make([]byte, m.ChunkSize)
	for _, c := range m.Chunks {
		got := buf[:c.RawLength]
		if _, err := disk.ReadAt(got, c.RawOffset); err != nil {
			return d, fmt.Errorf("read %s at %d: %w", path, c.RawOffset, err)
		}
		if c.Verify(got) == nil {
			continue
		}
		d.Differ++
		if !c.Zero {
			d.Fetch++
			d.Bytes += uint64(c.Length)
		}
	}
	return d, nil
}
