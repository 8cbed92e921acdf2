package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Types of MBR partitions.
const (
	mbrExtended    = 0x05
	mbrExtendedLBA = 0x0f
	mbrLinuxExt    = 0x85
	mbrFAT32       = 0x0c // with LBA; the seed's filesystem is smaller, and nobody minds
	mbrProtective  = 0xee
	mbrEFI         = 0xef
)

// maxLogical bounds the chain of logical partitions; Linux stops at 256 partitions.
const maxLogical = 250

// An mbr is a sector with four entries of 16 bytes: the first one of a disk, or one of the chain that logical partitions
// hang on (EBR).
type mbr [512]byte

// readMBR reads one at a place of the disk. ok is false when it is none, or boot code without a table.
func readMBR(r io.ReaderAt, off int64) (m mbr, ok bool) {
	if n, _ := r.ReadAt(m[:], off); n < len(m) || m[510] != 0x55 || m[511] != 0xaa {
		return m, false
	}
	for i := range 4 {
		if m.entry(i)[0]&0x7f != 0 {
			return m, false // boot flag is 00 or 80: this is code, not a table
		}
	}
	return m, true
}

func (m *mbr) entry(i int) []byte { return m[446+16*i:][:16] }

// place is where an entry's partition lies, in sectors.
func (m *mbr) place(i int) (first, count uint64, kind byte) {
	e := m.entry(i)
	return uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:])), e[4]
}

// partitions lists the primary ones and the logical ones, with the numbers that Linux gives them.
func (m *mbr) partitions(r io.ReaderAt, sectors uint64, sector int) (parts []extent) {
	bytes := int64(sector)
	for i := range 4 {
		first, count, kind := m.place(i)
		if kind == 0 || kind == mbrProtective || count == 0 || first+count > sectors {
			continue
		}
		parts = append(parts, extent{offset: int64(first) * bytes, length: int64(count) * bytes, number: i + 1, mbr: kind})
	}
	for _, p := range slices.Clone(parts) {
		if p.mbr == mbrExtended || p.mbr == mbrExtendedLBA || p.mbr == mbrLinuxExt {
			return append(parts, logical(r, p, sector)...)
		}
	}
	return parts
}

// logical walks the chain: an EBR's first entry is a partition, counted from the EBR, the second one the next EBR, counted from
// the extended partition.
func logical(r io.ReaderAt, extended extent, sector int) (parts []extent) {
	bytes := int64(sector)
	at := extended.offset
	for range maxLogical {
		m, ok := readMBR(r, at)
		if !ok {
			break
		}
		if first, count, kind := m.place(0); kind != 0 && count > 0 {
			p := extent{offset: at + int64(first)*bytes, length: int64(count) * bytes, number: 5 + len(parts), mbr: kind}
			if p.offset+p.length > extended.offset+extended.length {
				break
			}
			parts = append(parts, p)
		}
		next, _, kind := m.place(1)
		if kind == 0 || next == 0 {
			break
		}
		if at = extended.offset + int64(next)*bytes; at >= extended.offset+extended.length {
			break
		}
	}
	return parts
}

// addSeedMBR puts a seed partition at the end of a disk without a GPT, in a free entry of the four.
func (d *Device) addSeedMBR() (*extent, error) {
	const alternative = "use an image with a GPT, or one with a small FAT partition labelled cidata"
	m, ok := readMBR(d, 0)
	if !ok {
		return nil, errors.New("no partition table on the disk; is this a disk image?")
	}
	free := -1
	for i := range 4 {
		switch _, _, kind := m.place(i); {
		case kind == mbrProtective:
			return nil, errors.New("the MBR says that there is a GPT, and there is none")
		case kind == 0 && free < 0:
			free = i
		}
	}
	if free < 0 {
		return nil, fmt.Errorf("all four entries of the MBR are used, so the seed has no place; %s", alternative)
	}
	// The table counts sectors in 32 bits.
	end := min(uint64(d.Size/int64(d.Sector)), 1<<32-1)
	perMiB, length := uint64(1<<20/d.Sector), uint64(seedSize/d.Sector)
	first := (end - length) / perMiB * perMiB
	_, parts := partitions(d, d.Size, d.Sector)
	for _, p := range parts {
		if p.offset+p.length > int64(first)*int64(d.Sector) && p.offset < int64(first+length)*int64(d.Sector) {
			return nil, fmt.Errorf("no room for the seed: partition %d ends at byte %d, the seed of %d bytes would start at %d; use a larger disk, or %s",
				p.number, p.offset+p.length, seedSize, int64(first)*int64(d.Sector), alternative)
		}
	}
	e := m.entry(free)
	clear(e)
	e[4] = mbrFAT32
	copy(e[1:4], "\xfe\xff\xff") // cylinders, heads and sectors: beyond what they can say
	copy(e[5:8], "\xfe\xff\xff")
	binary.LittleEndian.PutUint32(e[8:], uint32(first))
	binary.LittleEndian.PutUint32(e[12:], uint32(length))
	if _, err := d.WriteAt(m[:], 0); err != nil {
		return nil, fmt.Errorf("write the MBR: %w", err)
	}
	return &extent{offset: int64(first) * int64(d.Sector), length: int64(length) * int64(d.Sector), number: free + 1, mbr: mbrFAT32}, nil
}
