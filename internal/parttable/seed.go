package parttable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// SeedName is the label of the partition from which cloud-init reads its seed. SeedSize is the size of the
// one that pxectl adds to an image without one.
const (
	SeedName = "cidata"
	SeedSize = 4 << 20
)

// Seed finds the partition with the label cidata, by its name in the GPT or by its file system.
func (t Table) Seed(r io.ReaderAt) (Extent, bool) {
	for _, p := range t.Partitions {
		if strings.EqualFold(p.Name, SeedName) || SeedLabel(r, p.Offset) == SeedName {
			return p, true
		}
	}
	return Extent{}, false
}

// SeedLabel returns the label of the file system at an offset if cloud-init looks for it: "cidata" or
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

// FATLabel reads the label in a FAT boot sector of 512 bytes. ok is false for another kind of sector.
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

// errNoEntry says that a seed partition cannot be added, however large the disk is.
var errNoEntry = errors.New("use an image with a partition labelled " + SeedName)

// SeedFirst returns the first sector of a seed partition on a disk of that many sectors. It lies at the end
// of the disk: partitions keep their numbers, and the image's last one can still grow. entry is the free
// entry of an MBR.
func (t Table) SeedFirst(sectors uint64, sector int) (first uint64, entry int, err error) {
	perMiB, length := uint64(1<<20/sector), uint64(SeedSize/sector)
	end := sectors
	switch t.Kind {
	case "gpt":
		if t.GPT == nil {
			return 0, 0, t.Fault
		}
		if t.GPT.free() < 0 {
			return 0, 0, fmt.Errorf("all %d entries of the GPT are used, so the seed has no place; %w",
				t.GPT.Header.Entries, errNoEntry)
		}
		end = sectors - 1 - t.GPT.TableSectors() // the backup GPT begins there
	default:
		if entry = t.MBR.free(); entry < 0 {
			return 0, 0, fmt.Errorf("all four entries of the MBR are used, so the seed has no place; %w",
				errNoEntry)
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

// Smallest is the size in bytes of the smallest disk for the partitions, the backup of a GPT, and the seed.
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
