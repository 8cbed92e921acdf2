// Package fat writes a FAT12 or FAT16 filesystem with a few files in its root directory, for the NoCloud
// seed. It also reads files in FAT filesystems of others, for their boot loaders, and does not change those.
//
// The layout is that of Microsoft's "FAT32 File System Specification" 1.03 (fatgen103), whose sections are
// cited below.
package fat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

// A File is one file of the root directory.
type File struct {
	Name string // ASCII; anything that is not 8.3 gets a long name
	Data []byte
}

const (
	reserved    = 1 // sectors before the first FAT
	fats        = 2
	rootEntries = 512 // fills whole sectors at 512 and at 4096
	entrySize   = 32

	// "FAT Type Determination": fewer clusters than this are FAT12, fewer than that FAT16.
	minFAT16 = 4085
	maxFAT16 = 65525

	attrVolume  = 0x08
	attrArchive = 0x20
	attrLong    = 0x0f
)

// 1980-01-01, the first day that FAT knows: the seed's bytes depend on nothing but the files.
const firstDay = 1<<5 | 1

type geometry struct {
	sector, perCluster     int
	sectors, fatSectors    int
	dataStart, clusters    int
	bits                   int
	rootStart, rootSectors int
}

// layout chooses the cluster size and the size of the FATs for a volume of the given size.
func layout(size, sector int) (geometry, error) {
	if sector != 512 && sector != 4096 {
		return geometry{}, fmt.Errorf("FAT: sector size %d, want 512 or 4096", sector)
	}
	g := geometry{sector: sector, sectors: size / sector, rootSectors: rootEntries * entrySize / sector}
	for g.perCluster = 1; g.perCluster <= 64; g.perCluster *= 2 {
		for _, g.bits = range []int{12, 16} {
			// Enough FAT for every cluster that the volume could have without FATs.
			most := g.sectors/g.perCluster + 2
			g.fatSectors = (most*g.bits/8 + 1 + sector - 1) / sector
			g.rootStart = reserved + fats*g.fatSectors
			g.dataStart = g.rootStart + g.rootSectors
			g.clusters = (g.sectors - g.dataStart) / g.perCluster
			// Keep away from the limits: other implementations are off by a few.
			if g.clusters >= 16 &&
				(g.bits == 12 && g.clusters < minFAT16-16 ||
					g.bits == 16 && g.clusters >= minFAT16+16 && g.clusters < maxFAT16-16) {
				return g, nil
			}
		}
	}
	return geometry{}, fmt.Errorf("FAT: no layout for %d bytes", size)
}

// Build makes a filesystem of exactly size bytes.
func Build(size, sector int, label string, files []File) ([]byte, error) {
	g, err := layout(size, sector)
	if err != nil {
		return nil, err
	}
	if len(label) == 0 || len(label) > 11 {
		return nil, fmt.Errorf("FAT: label %q: want 1 to 11 bytes", label)
	}
	img := make([]byte, size)
	padded := fmt.Sprintf("%-11s", label)
	id := crc32.NewIEEE()
	for _, f := range files {
		id.Write(f.Data)
	}
	g.boot(img, padded, id.Sum32())

	w := writer{geometry: g, img: img, next: 2}
	w.setFAT(0, 0xff00|0xf8)
	w.setFAT(1, 0xffff)
	w.entry([]byte(padded), attrVolume, 0, 0)
	for i, f := range files {
		if err := w.file(f, i); err != nil {
			return nil, err
		}
	}
	second := (reserved + g.fatSectors) * sector
	copy(img[second:second+g.fatSectors*sector], img[reserved*sector:second])
	return img, nil
}

// boot writes the boot sector ("Boot Sector and BPB").
func (g geometry) boot(b []byte, label string, id uint32) {
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90MSWIN4.1") // the OEM name that the specification advises
	le.PutUint16(b[11:], uint16(g.sector))
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = fats
	le.PutUint16(b[17:], rootEntries)
	if g.sectors < 1<<16 {
		le.PutUint16(b[19:], uint16(g.sectors))
	} else {
		le.PutUint32(b[32:], uint32(g.sectors))
	}
	b[21] = 0xf8 // fixed disk
	le.PutUint16(b[22:], uint16(g.fatSectors))
	le.PutUint16(b[24:], 63)
	le.PutUint16(b[26:], 255)
	b[36] = 0x80
	b[38] = 0x29 // the three fields that follow are there
	le.PutUint32(b[39:], id)
	copy(b[43:], label)
	copy(b[54:], fmt.Sprintf("FAT%-5d", g.bits))
	b[510], b[511] = 0x55, 0xaa
}

type writer struct {
	geometry
	img     []byte
	next    int // first free cluster
	entries int // of the root directory, used so far
}

func (w *writer) setFAT(cluster, value int) {
	table := w.img[reserved*w.sector:]
	if w.bits == 16 {
		binary.LittleEndian.PutUint16(table[2*cluster:], uint16(value))
		return
	}
	// Two clusters share three bytes.
	pair := table[cluster+cluster/2:]
	old := binary.LittleEndian.Uint16(pair)
	if cluster%2 == 0 {
		old = old&0xf000 | uint16(value&0xfff)
	} else {
		old = old&0x000f | uint16(value&0xfff)<<4
	}
	binary.LittleEndian.PutUint16(pair, old)
}

func (w *writer) entry(name []byte, attr byte, cluster, size int) {
	e := w.slot()
	copy(e, name)
	e[11] = attr
	for _, at := range []int{16, 18, 24} { // created, accessed, written
		binary.LittleEndian.PutUint16(e[at:], firstDay)
	}
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
}

func (w *writer) slot() []byte {
	at := w.rootStart*w.sector + w.entries*entrySize
	w.entries++
	return w.img[at : at+entrySize]
}

func (w *writer) file(f File, i int) error {
	bytesPer := w.perCluster * w.sector
	need := (len(f.Data) + bytesPer - 1) / bytesPer
	if free := w.clusters + 2 - w.next; need > free {
		return fmt.Errorf("FAT: %s of %d bytes does not fit: %d bytes are left of %d", f.Name, len(f.Data),
			free*bytesPer, len(w.img))
	}
	// The long name's entries and the short one.
	if slots := (len(f.Name)+12)/13 + 1; w.entries+slots > rootEntries {
		return fmt.Errorf("FAT: the root directory is full at %s", f.Name)
	}
	first := 0
	if need > 0 {
		first = w.next
	}
	for n := range need {
		next := w.next + 1
		if n == need-1 {
			next = 0xffff // end of chain, in 12 bits too
		}
		w.setFAT(w.next, next)
		w.next++
	}
	if need > 0 {
		copy(w.img[(w.dataStart+(first-2)*w.perCluster)*w.sector:], f.Data)
	}
	short := shortName(f.Name, i)
	if err := w.longName(f.Name, short); err != nil {
		return err
	}
	w.entry(short, attrArchive, first, len(f.Data))
	return nil
}

// shortName makes the 8.3 alias: the first letters, and a number that no other file has.
func shortName(name string, i int) []byte {
	var base strings.Builder
	for _, r := range strings.ToUpper(name) {
		if (r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') && base.Len() < 5 {
			base.WriteRune(r)
		}
	}
	return fmt.Appendf(nil, "%-11s", fmt.Sprintf("%s~%d", base.String(), i+1))
}

// longName writes the entries that precede the short one, last piece first ("FAT Long Directory Entries").
func (w *writer) longName(name string, short []byte) error {
	chars := utf16.Encode([]rune(name))
	if len(chars) == 0 || len(chars) > 255 || strings.ContainsAny(name, `\/:*?"<>|`) {
		return fmt.Errorf("FAT: file name %q", name)
	}
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	const per = 13
	pieces := (len(chars) + per - 1) / per
	for piece := pieces; piece >= 1; piece-- {
		e := w.slot()
		e[0] = byte(piece)
		if piece == pieces {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, sum
		for n := range per {
			c := uint16(0xffff)
			switch at := (piece-1)*per + n; {
			case at < len(chars):
				c = chars[at]
			case at == len(chars):
				c = 0
			}
			binary.LittleEndian.PutUint16(e[longAt[n]:], c)
		}
	}
	return nil
}

// longAt is the offset of each character of a long name's piece in its entry.
var longAt = [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
