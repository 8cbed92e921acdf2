package store

import (
	"bytes"
	"encoding/binary"

	"github.com/pxectl/pxectl/images"
)

// espType is the type GUID of an EFI system partition as it lies on disk,
// C12A7328-F81F-11D2-BA4B-00A0C93EC93B (UEFI specification table 5-7).
var espType = []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}

// readContents reads what the beginning of an image says of its layout. What it cannot read it
// leaves out: this informs and decides nothing.
func readContents(head []byte) (c images.Contents, sectorSize int) {
	if len(head) < 512 {
		return c, 512
	}
	for _, size := range []int{512, 4096} {
		if count, esp, ok := readGPT(head, size); ok {
			c.PartitionTable, c.Partitions, c.UEFI = "gpt", count, esp
			c.BIOS = hasBootCode(head)
			return c, size
		}
	}
	if head[510] != 0x55 || head[511] != 0xaa {
		return c, 512
	}
	// The four entries of an MBR. A file system's boot sector has the same signature, but hardly ever
	// four status bytes that are 0x00 or 0x80.
	for i := range 4 {
		e := head[446+16*i:][:16]
		if e[0] != 0 && e[0] != 0x80 {
			return images.Contents{}, 512
		}
		if kind := e[4]; kind != 0 && binary.LittleEndian.Uint32(e[12:]) != 0 {
			c.Partitions++
			c.UEFI = c.UEFI || kind == 0xef
		}
	}
	if c.Partitions == 0 {
		return images.Contents{}, 512
	}
	c.PartitionTable, c.BIOS = "mbr", hasBootCode(head)
	return c, 512
}

// hasBootCode says whether BIOS firmware would find something to run in sector 0.
func hasBootCode(head []byte) bool {
	return head[510] == 0x55 && head[511] == 0xaa && !images.IsZero(head[:440])
}

// readGPT reads the primary table (UEFI specification section 5.3) if there is one for
// sectors of this size.
func readGPT(head []byte, sector int) (partitions int, esp, ok bool) {
	if len(head) < 2*sector || string(head[sector:sector+8]) != "EFI PART" {
		return 0, false, false
	}
	le := binary.LittleEndian
	h := head[sector:]
	first, count, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if first < 2 || first > uint64(len(head)/sector) || count > 4096 || size < 128 || size > 4096 {
		return 0, false, true
	}
	entries := head[int(first)*sector:]
	for range count {
		if len(entries) < int(size) {
			break
		}
		if kind := entries[:16]; !images.IsZero(kind) {
			partitions++
			esp = esp || bytes.Equal(kind, espType)
		}
		entries = entries[size:]
	}
	return partitions, esp, true
}
