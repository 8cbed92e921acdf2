package parttable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// SeedName is the label of the partition that cloud-init reads its seed from, and SeedSize how large the one
// is that pxectl adds to an image that has none.
const (
	SeedName = "cidata"
	SeedSize = 4 << 20
)

// Seed finds the partition that is labelled cidata, by its name in the GPT or by its file system.
func (t Table) Seed(r io.ReaderAt) (Extent, bool) {
	for _, p := range t.Partitions {
		if strings.EqualFold(p.Name, SeedName) || SeedLabel(r, p.Offset) == SeedName {
			return p, true
		}
	}
	return Extent{}, false
}

// SeedLabel is the label of the file system at a place when it is one that cloud-init looks for: "cidata" or
// "config-2".
func SeedLabel(r io.ReaderAt, offset int64) string {
	boot := make([]byte, 512)
	if n, _ := r.ReadAt(boot, offset); n == len(boot) {
		if label, ok := FATLabel(boot); ok {
			return seedLabel(label)
		}
	}
	iso := make([]byte, 0x48) // ECMA-119 section 8.4: the volume descriptor and its identifier
	if n, _ := r.ReadAt(iso, offset+0x8000); n == len(iso) && string(iso[1:6]) == "CD001" {
		return seedLabel(string(iso[0x28:0x48]))
	}
	return ""
}

func seedLabel(label string) string {
	switch l := strings.ToLower(strings.TrimRight(label, " \x00")); l {
	case SeedName, "config-2":
		return l
	}
	return ""
}

// FATLabel reads the label of a FAT boot sector of 512 bytes. ok is false when it is none.
func FATLabel(boot []byte) (label string, ok bool) {
	if boot[510] != 0x55 || boot[511] != 0xaa {
		return "", false
	}
	switch {
	case bytes.HasPrefix(boot[54:], []byte("FAT1")):
		return strings.TrimRight(string(boot[43:54]), " \x00"), true
	case bytes.HasPrefix(boot[82:], []byte("FAT32")):
		return strings.TrimRight(string(boot[71:82]), " \x00"), true
	}
	return "", false
}

// errNoEntry says that a seed partition cannot be added, however large the disk.
var errNoEntry = errors.New("use an image with a partition labelled " + SeedName)

// SeedFirst is the sector at which a seed partition begins on a disk of so many sectors: at its end, so that
// partitions keep their numbers, and the last one of the image can still grow up to it. entry is the free one
// of an MBR.
func (t Table) SeedFirst(sectors uint64, sector int) (first uint64, entry int, err error) {
	perMiB, length := uint64(1<<20/sector), uint64(SeedSize/sector)
	end := sectors
	switch t.Kind {
	case "gpt":
		if t.GPT == nil {
			return 0, 0, t.Fault
		}
		if t.GPT.free() < 0 {
			return 0, 0, fmt.Errorf("all %d entries of the GPT are used, so the seed has no place; %w", t.GPT.Header.Entries, errNoEntry)
		}
		end = sectors - 1 - t.GPT.TableSectors() // where the backup begins
	default:
		if entry = t.MBR.free(); entry < 0 {
			return 0, 0, fmt.Errorf("all four entries of the MBR are used, so the seed has no place; %w", errNoEntry)
		}
		end = min(end, 1<<32-1) // the table counts sectors in 32 bits
	}
	if end < length {
		return 0, 0, fmt.Errorf("no room for the seed of %d bytes", SeedSize)
	}
	first = (end - length) / perMiB * perMiB
	for _, p := range t.Partitions {
		if p.Offset+p.Length > int64(first)*int64(sector) && p.Offset < int64(first+length)*int64(sector) {
			return 0, 0, fmt.Errorf("no room for the seed: partition %d ends at byte %d, the seed of %d bytes would start at %d; use a larger disk, or an image with a partition labelled %s",
				p.Number, p.Offset+p.Length, SeedSize, int64(first)*int64(sector), SeedName)
		}
	}
	return first, entry, nil
}

// Smallest is how many bytes a disk has at least that holds the partitions, the backup of a GPT, and the
// seed.
func (t Table) Smallest(r io.ReaderAt, sector int) (uint64, error) {
	var end uint64 // of the last partition, in sectors
	for _, p := range t.Partitions {
		end = max(end, uint64(p.Offset+p.Length+int64(sector)-1)/uint64(sector))
	}
	var backup uint64
	if t.GPT != nil {
		backup = 1 + t.GPT.TableSectors()
	}
	if _, ok := t.Seed(r); ok {
		return (end + backup) * uint64(sector), nil
	}
	perMiB := uint64(1 << 20 / sector)
	sectors := (end+perMiB-1)/perMiB*perMiB + uint64(SeedSize/sector) + backup
	_, _, err := t.SeedFirst(sectors, sector)
	return sectors * uint64(sector), err
}
