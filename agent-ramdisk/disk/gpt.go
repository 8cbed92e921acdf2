package disk

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

// errNoGPT says that there is no GPT, good or bad.
var errNoGPT = errors.New("no GPT")

// A gptHeader is the table of section 5.3.2.
type gptHeader struct {
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

// A gpt is a header and its entries.
type gpt struct {
	header gptHeader
	rest   []byte // of the header behind what is defined, kept
	table  []byte
	sector int64
}

// A partition is a used entry.
type partition struct {
	Number      int // from 1
	Type        [16]byte
	Unique      [16]byte
	First, Last uint64 // LBA, both inside
	Name        string
}

// readGPT reads the header at lba and its entries, and checks both CRCs.
func readGPT(r io.ReaderAt, sector int, lba uint64) (*gpt, error) {
	block := make([]byte, sector)
	if _, err := r.ReadAt(block, int64(lba)*int64(sector)); err != nil {
		return nil, fmt.Errorf("GPT at LBA %d: %w", lba, err)
	}
	if string(block[:8]) != gptSignature {
		return nil, errNoGPT
	}
	g := &gpt{sector: int64(sector)}
	if _, err := binary.Decode(block, binary.LittleEndian, &g.header); err != nil {
		return nil, err
	}
	h := &g.header
	switch {
	case h.HeaderSize < gptHeaderSize || int(h.HeaderSize) > sector:
		return nil, fmt.Errorf("GPT at LBA %d: header of %d bytes", lba, h.HeaderSize)
	case headerCRC(block[:h.HeaderSize]) != h.HeaderCRC:
		return nil, fmt.Errorf("GPT at LBA %d: the header's checksum is wrong", lba)
	case h.MyLBA != lba:
		return nil, fmt.Errorf("GPT at LBA %d: says that it is at LBA %d", lba, h.MyLBA)
	case h.EntrySize < 128 || h.EntrySize%8 != 0 || h.Entries == 0 || h.Entries > maxEntries || uint64(h.Entries)*uint64(h.EntrySize) > maxTable:
		return nil, fmt.Errorf("GPT at LBA %d: %d entries of %d bytes", lba, h.Entries, h.EntrySize)
	case h.EntriesLBA > 1<<48 || h.FirstUsable > h.LastUsable || h.LastUsable > 1<<48:
		return nil, fmt.Errorf("GPT at LBA %d: usable from %d to %d, entries at %d", lba, h.FirstUsable, h.LastUsable, h.EntriesLBA)
	}
	g.rest = bytes.Clone(block[gptHeaderSize:h.HeaderSize])
	g.table = make([]byte, h.Entries*h.EntrySize)
	if _, err := r.ReadAt(g.table, int64(h.EntriesLBA)*g.sector); err != nil {
		return nil, fmt.Errorf("GPT at LBA %d: entries at LBA %d: %w", lba, h.EntriesLBA, err)
	}
	if crc32.ChecksumIEEE(g.table) != h.EntriesCRC {
		return nil, fmt.Errorf("GPT at LBA %d: the entries' checksum is wrong", lba)
	}
	return g, nil
}

// headerCRC is taken with the checksum's own field zero.
func headerCRC(header []byte) uint32 {
	b := bytes.Clone(header)
	clear(b[16:20])
	return crc32.ChecksumIEEE(b)
}

// encode gives the header's sector with both checksums.
func (g *gpt) encode() []byte {
	h := &g.header
	h.EntriesCRC = crc32.ChecksumIEEE(g.table)
	block := make([]byte, g.sector)
	if _, err := binary.Encode(block, binary.LittleEndian, h); err != nil {
		panic(err) // fixed size, larger block
	}
	copy(block[gptHeaderSize:], g.rest)
	h.HeaderCRC = headerCRC(block[:h.HeaderSize])
	binary.LittleEndian.PutUint32(block[16:], h.HeaderCRC)
	return block
}

// tableSectors is how many sectors the entries take.
func (g *gpt) tableSectors() uint64 {
	return uint64((int64(len(g.table)) + g.sector - 1) / g.sector)
}

// partitions lists the used entries, and refuses those that lie outside of limit sectors.
func (g *gpt) partitions(limit uint64) ([]partition, error) {
	var parts []partition
	for i := range int(g.header.Entries) {
		e := g.entry(i)
		p := partition{Number: i + 1, First: binary.LittleEndian.Uint64(e[32:]), Last: binary.LittleEndian.Uint64(e[40:])}
		copy(p.Type[:], e)
		if p.Type == [16]byte{} {
			continue
		}
		if p.First > p.Last || p.Last >= limit {
			return nil, fmt.Errorf("GPT: partition %d from LBA %d to %d lies outside of the disk's %d sectors", p.Number, p.First, p.Last, limit)
		}
		copy(p.Unique[:], e[16:])
		p.Name = partitionName(e[56:128])
		parts = append(parts, p)
	}
	return parts, nil
}

func (g *gpt) entry(i int) []byte {
	return g.table[i*int(g.header.EntrySize) : (i+1)*int(g.header.EntrySize)]
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

// add puts a partition into the first free entry and returns its number.
func (g *gpt) add(typeGUID, unique [16]byte, first, last uint64, name string) (int, error) {
	for i := range int(g.header.Entries) {
		e := g.entry(i)
		if [16]byte(e) != [16]byte{} {
			continue
		}
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
	return 0, fmt.Errorf("GPT: all %d entries are used", g.header.Entries)
}

// guid reads the text form; its first three fields lie little-endian on disk (appendix A).
func guid(text string) [16]byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic("disk: GUID " + text)
	}
	return [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}
