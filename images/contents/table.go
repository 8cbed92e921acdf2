package contents

import (
	"bytes"
	"fmt"
	"io"

	"github.com/pxectl/pxectl/internal/parttable"
)

// A Table describes the layout of a disk.
type Table struct {
	Kind       string // "gpt", "mbr", or ""
	SectorSize int    // 512 or 4096: of the disk for which the image was made
	BootCode   bool   // sector 0 has code that a BIOS would run
	Partitions []Partition
	Fault      string // says what is wrong with the table, or why a seed cannot be added
	// Smallest is the size in bytes of the smallest disk for the partitions and the seed; 0 when there is
	// none.
	Smallest int64
}

// A Partition is the place of a partition, in bytes. It comes from the image and may be nonsense.
type Partition struct {
	Offset, Length int64
	ESP            bool // an EFI system partition
}

// HasESP says whether there is an EFI system partition.
func (t Table) HasESP() bool {
	for _, p := range t.Partitions {
		if p.ESP {
			return true
		}
	}
	return false
}

// ReadTable reads the partition table of a disk of size bytes.
func ReadTable(r io.ReaderAt, size int64) Table {
	head := make([]byte, 512)
	if n, _ := r.ReadAt(head, 0); n < len(head) {
		return Table{SectorSize: 512}
	}
	sector, found := 512, parttable.Read(r, size, 512)
	if found.Kind != "gpt" {
		if large := parttable.Read(r, size, 4096); large.Kind == "gpt" {
			sector, found = 4096, large
		}
	}
	t := Table{Kind: found.Kind, SectorSize: sector}
	if t.Kind == "" {
		return t
	}
	t.BootCode = head[510] == 0x55 && head[511] == 0xaa && len(bytes.Trim(head[:440], "\x00")) > 0
	for _, p := range found.Partitions {
		t.Partitions = append(t.Partitions, Partition{p.Offset, p.Length, p.ESP()})
	}
	if found.Fault != nil {
		t.Fault = fmt.Sprintf("%v, or the image was cut off", found.Fault)
		return t
	}
	smallest, err := found.Smallest(r, sector)
	if err != nil {
		t.Fault = err.Error()
		return t
	}
	t.Smallest = max(int64(smallest), size)
	return t
}
