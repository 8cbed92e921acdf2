package verify

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A Scan is the result of reading a disk's file.
type Scan struct {
	NonZero int64    // bytes that are not zero
	Marks   []string // names of the marks that were found, sorted
}

const scanBlock = 1 << 20

// ScanDisk reads the whole file of a disk except its holes, counts bytes that are not zero and looks for
// marks, which are shorter than 4 KiB.
func ScanDisk(path string, marks map[string]string) (s Scan, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	found := map[string]bool{}
	const before = 4 << 10 // kept from a block, for marks that lie across two
	buf := make([]byte, before+scanBlock)
	for at := int64(0); ; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data from here on
			break
		}
		if err != nil {
			return s, err
		}
		if data > at {
			clear(buf[:before])
		}
		n, err := f.ReadAt(buf[before:], data)
		if err != nil && !errors.Is(err, io.EOF) {
			return s, err
		}
		at = data + int64(n)
		s.NonZero += int64(n - bytes.Count(buf[before:before+n], []byte{0}))
		for name, mark := range marks {
			if !found[name] && bytes.Contains(buf[:before+n], []byte(mark)) {
				found[name] = true
			}
		}
		copy(buf, buf[n:before+n])
	}
	s.Marks = slices.Sorted(maps.Keys(found))
	return s, nil
}
