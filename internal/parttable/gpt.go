package parttable

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

const (
	gptSignature  = "EFI PART"
	gptHeaderSize = 92 // table 5-5: what revision 1.0 defines
	maxEntries    = 1024
	maxTable      = 1 << 20
)

// ErrNoGPT says that there is no GPT, not even a damaged one.
var ErrNoGPT = errors.New("no GPT")

// A GPTHeader is the table of section 5.3.2 of the UEFI specification.
type GPTHeader struct {
	Signature    [8]byte
	Revision     uint32
	HeaderSize   uint32
	HeaderCRC    uint32
	Reserved     uint32
	MyLBA        uint64
	AlternateLBA uint64
	FirstUsable  uint64
	LastUsable   uint64
	DiskGUID     [16]byte
	EntriesLBA   uint64
	Entries      uint32
	EntrySize    uint32
	EntriesCRC   uint32
}

// A GPT is a header and its entries.
type GPT struct {
	Header GPTHeader
	Table  []byte
	rest   []byte // the header's bytes after the defined fields, kept as they are
	sector int64
}

// A GPTPartition is a used entry.
type GPTPartition struct {
	Number      int // from 1
	Type        [16]byte
	Unique      [16]byte
	First, Last uint64 // LBAs; the partition has both
	Name        string
}

// ReadGPT reads the header at lba and its entries, and checks both CRCs.
func ReadGPT(r io.ReaderAt, sector int, lba uint64) (*GPT, error) {
	block := make([]byte, sector)
	if _, err := r.ReadAt(block, int64(lba)*int64(sector)); err != nil {
		return nil, fmt.Errorf("GPT at LBA %d: %w", lba, err)
	}
	if string(block[:8]) != gptSignature {
		return nil, ErrNoGPT
	}
	g := &GPT{sector: int64(sector)}
	if _, err := binary.Decode(block, binary.LittleEndian, &g.Header); err != nil {
		return nil, err
	}
	h := &g.Header
	switch {
	case h.HeaderSize < gptHeaderSize || int(h.HeaderSize) > sector:
		return nil, fmt.Errorf("GPT at LBA %d: header of %d bytes", lba, h.HeaderSize)
	case headerCRC(block[:h.HeaderSize]) != h.HeaderCRC:
		return nil, fmt.Errorf("GPT at LBA %d: the header's checksum is wrong", lba)
	case h.MyLBA != lba:
		return nil, fmt.Errorf("GPT at LBA %d: says that it is at LBA %d", lba, h.MyLBA)
	case h.EntrySize < 128 || h.EntrySize%8 != 0 || h.Entries == 0 || h.Entries > maxEntries ||
		uint64(h.Entries)*uint64(h.EntrySize) > maxTable:
		return nil, fmt.Errorf("GPT at LBA %d: %d entries of %d bytes", lba, h.Entries, h.EntrySize)
	case h.EntriesLBA > 1<<48 || h.FirstUsable > h.LastUsable || h.LastUsable > 1<<48:
		return nil, fmt.Errorf("GPT at LBA %d: usable from %d to %d, entries at %d", lba, h.FirstUsable,
			h.LastUsable, h.EntriesLBA)
	}
	g.rest = bytes.Clone(block[gptHeaderSize:h.HeaderSize])
	g.Table = make([]byte, h.Entries*h.EntrySize)
	if _, err := r.ReadAt(g.Table, int64(h.EntriesLBA)*g.sector); err != nil {
		return nil, fmt.Errorf("GPT at LBA %d: entries at LBA %d: %w", lba, h.EntriesLBA, err)
	}
	if crc32.ChecksumIEEE(g.Table) != h.EntriesCRC {
		return nil, fmt.Errorf("GPT at LBA %d: the entries' checksum is wrong", lba)
	}
	return g, nil
}

// headerCRC is computed with the checksum's own field zero.
func headerCRC(header []byte) uint32 {
	b := bytes.Clone(header)
	clear(b[16:20])
	return crc32.ChecksumIEEE(b)
}

// Encode returns the header's sector with both checksums.
func (g *GPT) Encode() []byte {
	h := &g.Header
	h.EntriesCRC = crc32.ChecksumIEEE(g.Table)
	block := make([]byte, g.sector)
	if _, err := binary.Encode(block, binary.LittleEndian, h); err != nil {
		panic(err) // fixed size, larger block
	}
	copy(block[gptHeaderSize:], g.rest)
	h.HeaderCRC = headerCRC(block[:h.HeaderSize])
	binary.LittleEndian.PutUint32(block[16:], h.HeaderCRC)
	return block
}

// TableSectors is the number of sectors of the entries.
func (g *GPT) TableSectors() uint64 {
	return uint64((int64(len(g.Table)) + g.sector - 1) / g.sector)
}

// Partitions lists the used entries. One outside of limit sectors is an error.
func (g *GPT) Partitions(limit uint64) ([]GPTPartition, error) {
	var parts []GPTPartition
	for i := range int(g.Header.Entries) {
		e := g.entry(i)
		p := GPTPartition{
			Number: i + 1,
			First:  binary.LittleEndian.Uint64(e[32:]),
			Last:   binary.LittleEndian.Uint64(e[40:]),
		}
		copy(p.Type[:], e)
		if p.Type == [16]byte{} {
			continue
		}
		if p.First > p.Last || p.Last >= limit {
			return nil, fmt.Errorf("GPT: partition %d from LBA %d to %d lies outside of the disk's %d sectors",
				p.Number, p.First, p.Last, limit)
		}
		copy(p.Unique[:], e[16:])
		p.Name = partitionName(e[56:128])
		parts = append(parts, p)
	}
	return parts, nil
}

func (g *GPT) entry(i int) []byte {
	return g.Table[i*int(g.Header.EntrySize) : (i+1)*int(g.Header.EntrySize)]
}

func partitionName(b []byte) string {
	chars := make([]uint16, 0, 36)
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		chars = append(chars, c)
	}
	return string(utf16.Decode(chars))
}

// Add puts a partition into the first free entry and returns its number.
func (g *GPT) Add(typeGUID, unique [16]byte, first, last uint64, name string) (int, error) {
	i := g.free()
	if i < 0 {
		return 0, fmt.Errorf("GPT: all %d entries are used", g.Header.Entries)
	}
	e := g.entry(i)
	clear(e)
	copy(e, typeGUID[:])
	copy(e[16:], unique[:])
	binary.LittleEndian.PutUint64(e[32:], first)
	binary.LittleEndian.PutUint64(e[40:], last)
	for n, c := range utf16.Encode([]rune(name)) {
		binary.LittleEndian.PutUint16(e[56+2*n:], c)
	}
	return i + 1, nil
}

// free is the first entry that is not used, or -1.
func (g *GPT) free() int {
	for i := range int(g.Header.Entries) {
		if [16]byte(g.entry(i)) == [16]byte{} {
			return i
		}
	}
	return -1
}

// GUID parses the text form. On the disk, its first three fields are little-endian (appendix A).
func GUID(text string) [16]byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic("parttable: GUID " + text)
	}
	return [16]byte{
		b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
	}
}
