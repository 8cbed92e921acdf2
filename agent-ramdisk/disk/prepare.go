package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/internal/parttable"
)

// Prepared describes a disk after Prepare.
type Prepared struct {
	// Zeros says that the disk reads zeros wherever nothing is written: it was discarded, and checked at
	// places all over it. Otherwise zero chunks must be written. Reading back checks every chunk in any case.
	Zeros     bool
	Discarded bool
}

const (
	edge = 1 << 20 // of the disk and of each old partition: where tables, labels and boot code lie
	tail = 1 << 20
)

// Prepare clears every signature by which an old system could be found, and discards the disk if it can.
// Doing it again is harmless.
//
// It leaves the first keep bytes for a delta write, except for the labels in them, so that nothing boots
// meanwhile.
func (d *Device) Prepare(keep int64) (Prepared, error) {
	if d.Size < 2*edge {
		return Prepared{}, fmt.Errorf("%s holds %d bytes: too small for any system", d.Name, d.Size)
	}
	for _, p := range append(parttable.All(d, d.Size, d.Sector), parttable.Extent{Length: d.Size}) {
		end := p.Offset + p.Length
		// ZFS, LVM and RAID keep copies at the end, too.
		places := [][2]int64{{p.Offset, min(p.Offset+edge, end)}, {max(p.Offset, end-tail), end}}
		for _, off := range farCopies {
			if at := p.Offset + off; at+4096 <= end {
				places = append(places, [2]int64{at, at + 4096})
			}
		}
		for _, r := range places {
			if from := max(r[0], keep); from < r[1] {
				if err := d.clear(from, r[1]-from); err != nil {
					return Prepared{}, err
				}
			}
		}
	}
	if err := d.WipeLabels(); err != nil {
		return Prepared{}, err
	}
	var p Prepared
	var err error
	if keep == 0 {
		p.Discarded, p.Zeros, err = d.discardProved()
	} else if d.CanDiscard() {
		err = d.Discard(context.Background(), (keep+edge-1)/edge*edge, nil)
		p.Discarded = err == nil
	}
	if err != nil && !errors.Is(err, blockdev.ErrNoDiscard) {
		return Prepared{}, err
	}
	if err := d.Flush(); err != nil {
		return Prepared{}, err
	}
	if found := Probe(d, d.Size, d.Sector); len(found) > 0 && keep == 0 {
		return Prepared{},
			fmt.Errorf("%s still shows %v after its signatures were cleared: "+
				"it does not keep what is written", d.Name, found)
	}
	if err := d.Reread(); err != nil {
		return Prepared{}, err
	}
	return p, nil
}

// WipeLabels clears the first and the last MiB, which hold both GPTs, the MBR and boot code, so that nothing
// on the disk boots.
func (d *Device) WipeLabels() error {
	if err := d.clear(0, min(edge, d.Size)); err != nil {
		return err
	}
	if err := d.clear(max(0, d.Size-tail), min(tail, d.Size)); err != nil {
		return err
	}
	return d.Flush()
}

// clear writes zeros as data: the disk chooses what discarded ranges read.
func (d *Device) clear(off, length int64) error {
	buf := make([]byte, min(length, edge))
	for length > 0 {
		n := min(length, int64(len(buf)))
		if _, err := d.WriteAt(buf[:n], off); err != nil {
			return fmt.Errorf("clear %d bytes of %s at %d: %w", n, d.Name, off, err)
		}
		off, length = off+n, length-n
	}
	return nil
}
