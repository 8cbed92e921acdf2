package erase

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/inventory"
)

const (
	// edge is cleared and read back at both ends: boot code, the partition tables (both GPT places, with
	// sectors of 512 and of 4096 bytes) and most labels lie there.
	edge = 1 << 20
	// spread is how many places in between are read back, at random so that no disk can know them.
	spread = 512
	place  = 4096
)

// places are the offsets to read before and after: all of both ends, and random ones in between.
func places(size int64) []int64 {
	var offsets []int64
	for off := int64(0); off < edge; off += place {
		offsets = append(offsets, off, size-edge+off)
	}
	for range spread {
		offsets = append(offsets, rand.Int64N(size/place)*place)
	}
	return offsets
}

// A sample is the content of a place.
type sample struct {
	offset int64
	data   []byte
}

// sample reads places from the medium.
func (d *disk) sample(offsets []int64) ([]sample, error) {
	if err := d.Flush(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	out := make([]sample, 0, len(offsets))
	buf := blockdev.Buffer(place)
	for _, off := range offsets {
		n := min(place, d.Size-off)
		if err := d.ReadMedium(buf[:n], off); err != nil {
			return nil, fmt.Errorf("%s: read %d bytes at %d: %w", d.Name, n, off, err)
		}
		out = append(out, sample{off, bytes.Clone(buf[:n])})
	}
	return out, nil
}

// prove clears both ends, since a drive's pattern there can look like a partition table, and reads back.
// Wrong content is errPassed: the next method may do better.
func (d *disk) prove(r method, before []sample, out *inventory.Erased) error {
	quietly := func(int64) {}
	for _, off := range []int64{0, d.Size - edge} {
		if err := d.writeZeros(context.Background(), off, edge, quietly); err != nil {
			return err
		}
	}
	offsets := make([]int64, len(before))
	for i, s := range before {
		offsets[i] = s.offset
	}
	after, err := d.sample(offsets)
	if err != nil {
		return err
	}
	held, zero := 0, 0
	for i, now := range after {
		was := before[i]
		if !uniform(was.data) {
			held++
		}
		atEnd := now.offset+int64(len(now.data)) <= edge || now.offset >= d.Size-edge
		switch {
		case isZero(now.data):
			zero++
		case r.zeros || atEnd:
			return passed("read back at %d: not zeros", now.offset)
		case !uniform(now.data) && bytes.Equal(now.data, was.data):
			return passed("read back at %d: what was there before", now.offset)
		}
	}
	out.Checked = len(after)
	out.Proof = fmt.Sprintf("read back %d places: %d read zeros", len(after), zero)
	if held > 0 {
		out.Proof += fmt.Sprintf(", none of the %d that held data reads as before", held)
	}
	return nil
}

func isZero(b []byte) bool { return uniform(b) && (len(b) == 0 || b[0] == 0) }

// uniform says whether all bytes are equal, as on a disk that was erased or never written.
func uniform(b []byte) bool {
	return len(b) == 0 || bytes.Count(b, b[:1]) == len(b)
}
