package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/images"
)

const (
	samples    = 64
	sampleSize = 64 << 10
)

// discardProved discards the whole disk and says whether it reads zeros now. Only a trial shows that: the
// kernel dropped the flag by which disks used to claim it. So it writes marks all over the disk before, and
// they must be gone after.
func (d *Device) discardProved() (discarded, zeros bool, err error) {
	if !d.CanDiscard() {
		return false, false, nil
	}
	mark := blockdev.Buffer(sampleSize)
	copy(mark, bytes.Repeat([]byte("pxectl!\n"), sampleSize/8))
	for off := range d.samples() {
		if err := d.WriteDirect(mark[:min(sampleSize, d.Size-off)], off); err != nil {
			return false, false, fmt.Errorf("write to %s at %d: %w", d.Name, off, err)
		}
	}
	if err := d.Flush(); err != nil {
		return false, false, err
	}
	switch err := d.Discard(context.Background(), 0, nil); {
	case errors.Is(err, blockdev.ErrNoDiscard):
		// The first and the last mark lie in the places of labels.
		return false, false, d.WipeLabels()
	case err != nil:
		return false, false, err
	}
	if err := d.Flush(); err != nil {
		return false, false, err
	}
	for off := range d.samples() {
		got := mark[:min(sampleSize, d.Size-off)]
		if d.ReadMedium(got, off) != nil || !images.IsZero(got) {
			return true, false, nil
		}
	}
	return true, true, nil
}

// samples are places all over the disk.
func (d *Device) samples() func(yield func(int64) bool) {
	return func(yield func(int64) bool) {
		step := max(d.Size/samples, sampleSize)
		for off := int64(0); off < d.Size; off += step {
			if !yield(off / blockdev.Align * blockdev.Align) {
				return
			}
		}
	}
}

// zeroBuffer holds zeros to write, for a disk that cannot make zeros itself.
var zeroBuffer = sync.OnceValue(func() []byte { return blockdev.Buffer(1 << 20) })

// zero makes a range read zeros, by the disk's own command if it has one.
func (d *Device) zero(off, length int64) error {
	if d.Block && off%int64(d.Sector) == 0 && length%int64(d.Sector) == 0 {
		r := [2]uint64{uint64(off), uint64(length)}
		if err := d.Ioctl(unix.BLKZEROOUT, unsafe.Pointer(&r)); err == nil {
			return nil
		}
	}
	buf := zeroBuffer()
	for length > 0 {
		n := min(length, int64(len(buf)))
		if err := d.WriteDirect(buf[:n], off); err != nil {
			return fmt.Errorf("write zeros to %s at %d: %w", d.Name, off, err)
		}
		off, length = off+n, length-n
	}
	return nil
}
