package parttable

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Types of MBR partitions.
const (
	mbrExtended    = 0x05
	mbrExtendedLBA = 0x0f
	mbrLinuxExt    = 0x85
	FAT32          = 0x0c // with LBA
	Protective     = 0xee
	EFI            = 0xef
)

// maxLogical bounds the chain of logical partitions; Linux stops at 256 partitions.
const maxLogical = 250

// An MBR is a sector with four entries of 16 bytes: the first one of a disk, or an EBR in the chain of
// logical partitions.
type MBR [512]byte

// ReadMBR reads the sector at an offset of the disk. ok is false for another kind of sector, such as boot
// code without a table.
func ReadMBR(r io.ReaderAt, off int64) (m MBR, ok bool) {
	if n, _ := r.ReadAt(m[:], off); n < len(m) || m[510] != 0x55 || m[511] != 0xaa {
		return m, false
	}
	for i := range 4 {
		if m.Entry(i)[0]&0x7f != 0 {
			return m, false // boot flag is 00 or 80: this is code, not a table
		}
	}
	return m, true
}

// Entry returns one of the four.
func (m *MBR) Entry(i int) []byte { return m[446+16*i:][:16] }

// Place is the place of an entry's partition, in sectors.
func (m *MBR) Place(i int) (first, count uint64, kind byte) {
	e := m.Entry(i)
	return uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:])), e[4]
}

// partitions lists primary and logical partitions, with the numbers that Linux gives them.
func (m *MBR) partitions(r io.ReaderAt, sectors uint64, sector int) (parts []Extent) {
	bytes := int64(sector)
	for i := range 4 {
		first, count, kind := m.Place(i)
		if kind == 0 || kind == Protective || count == 0 || first+count > sectors {
			continue
		}
		parts = append(parts, Extent{
			Offset: int64(first) * bytes, Length: int64(count) * bytes, Number: i + 1, MBR: kind,
		})
	}
	for _, p := range slices.Clone(parts) {
		if p.MBR == mbrExtended || p.MBR == mbrExtendedLBA || p.MBR == mbrLinuxExt {
			return append(parts, logical(r, p, sector)...)
		}
	}
	return parts
}

// logical follows the chain of EBRs. In each, the first entry is a partition, counted from the EBR, and the
// second one is the next EBR, counted from the extended partition.
func logical(r io.ReaderAt, extended Extent, sector int) (parts []Extent) {
	bytes := int64(sector)
	at := extended.Offset
	for range maxLogical {
		m, ok := ReadMBR(r, at)
		if !ok {
			break
		}
		if first, count, kind := m.Place(0); kind != 0 && count > 0 {
			p := Extent{
				Offset: at + int64(first)*bytes,
				Length: int64(count) * bytes,
				Number: 5 + len(parts),
				MBR:    kind,
			}
			if p.Offset+p.Length > extended.Offset+extended.Length {
				break
			}
			parts = append(parts, p)
		}
		next, _, kind := m.Place(1)
		if kind == 0 || next == 0 {
			break
		}
		if at = extended.Offset + int64(next)*bytes; at >= extended.Offset+extended.Length {
			break
		}
	}
	return parts
}

// free is the first entry that is not used, or -1.
func (m *MBR) free() int {
	for i := range 4 {
		if _, _, kind := m.Place(i); kind == 0 {
			return i
		}
	}
	return -1
}

// outside names a primary partition that ends beyond the disk.
func (m *MBR) outside(sectors uint64) error {
	for i := range 4 {
		if first, count, kind := m.Place(i); kind != 0 && count > 0 && first+count > sectors {
			return fmt.Errorf("MBR: partition %d from sector %d to %d lies outside of the disk's %d sectors",
				i+1, first, first+count-1, sectors)
		}
	}
	return nil
}

// Protect makes the MBR that protects a GPT (section 5.2.3) span the disk. It adds a protective entry if
// there is none, and keeps boot code.
func (m *MBR) Protect(sectors uint64) {
	found := false
	for i := range 4 {
		if e := m.Entry(i); m[510] == 0x55 && m[511] == 0xaa && e[4] == Protective {
			binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 1<<32-1)))
			found = true
		}
	}
	if found {
		return
	}
	clear(m[446:510])
	e := m.Entry(0)
	copy(e, "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00")
	binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 1<<32-1)))
	m[510], m[511] = 0x55, 0xaa
}
