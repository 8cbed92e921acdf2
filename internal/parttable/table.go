package parttable

import (
	"errors"
	"io"
)

// An Extent is the place of a partition, in bytes, with the properties that its table gives it.
type Extent struct {
	Offset, Length int64
	Number         int
	Name           string   // in a GPT
	Type, Unique   [16]byte // in a GPT
	MBR            byte     // its type in an MBR
}

// ESP says whether a partition is an EFI system partition.
func (e Extent) ESP() bool { return e.Type == efiSystem || e.MBR == EFI }

// efiSystem is the type of EFI system partitions, table 5-7.
var efiSystem = GUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")

// A Table is the partition table of a disk, by the rules of the Linux kernel (block/partitions/efi.c): a GPT
// counts only if the MBR has a protective entry, and the backup counts if the primary is damaged.
type Table struct {
	Kind       string // "gpt", "mbr", or "" when there is none
	Partitions []Extent
	GPT        *GPT // with Kind "gpt" and an undamaged primary
	MBR        MBR  // with Kind "mbr"
	// Unprotected says that the only table is a GPT without a protective MBR. The kernel reads it once it has
	// one.
	Unprotected bool
	// Fault says what is wrong with the table: a damaged primary, or a partition outside of the disk. Such
	// partitions are not listed.
	Fault error
}

// Read reads the table of a disk of size bytes with sectors of the given size.
func Read(r io.ReaderAt, size int64, sector int) Table {
	sectors := uint64(size) / uint64(sector)
	if sectors < 4 {
		return Table{}
	}
	mbr, signed := ReadMBR(r, 0)
	protective, other := false, false
	for i := range 4 {
		if _, count, kind := mbr.Place(i); signed && kind == Protective {
			protective = true
		} else if signed && kind != 0 && count > 0 {
			other = true
		}
	}
	if protective || !other {
		if t := readGPTs(r, sectors, sector); t.Kind != "" {
			t.Unprotected = !protective
			return t
		}
	}
	if !other {
		return Table{}
	}
	t := Table{Kind: "mbr", MBR: mbr, Partitions: mbr.partitions(r, sectors, sector)}
	t.Fault = mbr.outside(sectors)
	return t
}

// readGPTs takes the primary, or the backup if the primary is damaged.
func readGPTs(r io.ReaderAt, sectors uint64, sector int) Table {
	primary, err := ReadGPT(r, sector, 1)
	if err == nil {
		t := Table{Kind: "gpt", GPT: primary}
		var list []GPTPartition
		list, t.Fault = primary.Partitions(sectors)
		t.Partitions = extents(list, sector)
		return t
	}
	backup, second := ReadGPT(r, sector, sectors-1)
	switch {
	case second == nil:
		if errors.Is(err, ErrNoGPT) {
			err = errors.New("GPT: the primary table is missing")
		}
		list, _ := backup.Partitions(sectors)
		return Table{Kind: "gpt", Partitions: extents(list, sector), Fault: err}
	case !errors.Is(err, ErrNoGPT):
		return Table{Kind: "gpt", Fault: err}
	}
	return Table{}
}

func extents(list []GPTPartition, sector int) (parts []Extent) {
	for _, p := range list {
		parts = append(parts, Extent{
			Offset: int64(p.First) * int64(sector), Length: int64(p.Last-p.First+1) * int64(sector),
			Number: p.Number, Name: p.Name, Type: p.Type, Unique: p.Unique,
		})
	}
	return parts
}

// All lists the partitions of every table on a disk, even of those that the kernel does not read. Whoever
// clears a disk needs them all.
func All(r io.ReaderAt, size int64, sector int) (parts []Extent) {
	sectors := uint64(size) / uint64(sector)
	if sectors < 4 {
		return nil
	}
	if mbr, ok := ReadMBR(r, 0); ok {
		parts = mbr.partitions(r, sectors, sector)
	}
	for _, lba := range []uint64{1, sectors - 1} {
		if g, err := ReadGPT(r, sector, lba); err == nil {
			if list, err := g.Partitions(sectors); err == nil {
				return append(parts, extents(list, sector)...)
			}
		}
	}
	return parts
}
