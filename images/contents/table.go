package contents

import (
	"bytes"
	"encoding/binary"
)

// A Table is what the beginning of a disk says of its layout.
type Table struct {
	Kind       string // "gpt", "mbr", or nothing
	SectorSize int    // 512 or 4096: that of the disk that the image was made for
	BootCode   bool   // BIOS firmware would find something to run in sector 0
	Partitions []Partition
}

// A Partition is where one lies, in bytes. Its place comes from the image and may be nonsense.
type Partition struct {
	Offset, Length int64
	ESP            bool // an EFI system partition
}

// espType is the type GUID of an EFI system partition as it lies on disk,
// C12A7328-F81F-11D2-BA4B-00A0C93EC93B (UEFI specification table 5-7).
var espType = []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}

// HasESP says whether there is an EFI system partition.
func (t Table) HasESP() bool {
	for _, p := range t.Partitions {
		if p.ESP {
			return true
		}
	}
	return false
}

// ReadTable reads the partition table from the first bytes of a disk; a few megabytes hold any.
func ReadTable(head []byte) Table {
	none := Table{SectorSize: 512}
	if len(head) < 512 {
		return none
	}
	signed := head[510] == 0x55 && head[511] == 0xaa
	bootCode := signed && len(bytes.Trim(head[:440], "\x00")) > 0
	for _, size := range []int{512, 4096} {
		if partitions, ok := readGPT(head, size); ok {
			return Table{"gpt", size, bootCode, partitions}
		}
	}
	if !signed {
		return none
	}
	// The four entries of an MBR. A file system's boot sector has the same signature, but hardly ever
	// four status bytes that are 0x00 or 0x80.
	t := Table{"mbr", 512, bootCode, nil}
	for i := range 4 {
		e := head[446+16*i:][:16]
		if e[0] != 0 && e[0] != 0x80 {
			return none
		}
		first, sectors := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if e[4] != 0 && sectors != 0 {
			t.Partitions = append(t.Partitions, Partition{int64(first) * 512, int64(sectors) * 512, e[4] == 0xef})
		}
	}
	if len(t.Partitions) == 0 {
		return none
	}
	return t
}

// readGPT reads the primary table (UEFI specification section 5.3) if there is one for
// sectors of this size.
func readGPT(head []byte, sector int) ([]Partition, bool) {
	if len(head) < 2*sector || string(head[sector:sector+8]) != "EFI PART" {
		return nil, false
	}
	le := binary.LittleEndian
	h := head[sector:]
	first, count, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if first < 2 || first > uint64(len(head)/sector) || count > 4096 || size < 128 || size > 4096 {
		return nil, true
	}
	var partitions []Partition
	entries := head[int(first)*sector:]
	for range count {
		if len(entries) < int(size) {
			break
		}
		if kind := entries[:16]; !bytes.Equal(kind, make([]byte, 16)) {
			p := Partition{ESP: bytes.Equal(kind, espType)}
			// Beyond any disk there is: the place stays zero and nobody looks.
			if from, last := le.Uint64(entries[32:]), le.Uint64(entries[40:]); from <= last && last < 1<<48 {
				p.Offset, p.Length = int64(from)*int64(sector), int64(last-from+1)*int64(sector)
			}
			partitions = append(partitions, p)
		}
		entries = entries[size:]
	}
	return partitions, true
}
