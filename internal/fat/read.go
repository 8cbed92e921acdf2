package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// A Volume is a FAT filesystem to look files up in.
type Volume struct {
	r    io.ReaderAt
	bits int // of a FAT entry

	sector, perCluster    int64
	fatStart, fatLength   int64 // bytes
	rootStart, rootLength int64 // FAT12 and 16
	rootCluster           uint32
	dataStart             int64
	clusters              uint32
}

// errNotFAT is the error for another filesystem, or none.
var errNotFAT = errors.New("not a FAT filesystem")

// Open reads the boot sector of the filesystem that begins at r's start.
func Open(r io.ReaderAt) (*Volume, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("boot sector: %w", err)
	}
	le := binary.LittleEndian
	v := &Volume{r: r, sector: int64(le.Uint16(b[11:])), perCluster: int64(b[13])}
	reserved, fats, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, fatSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if fatSectors == 0 {
		fatSectors = int64(le.Uint32(b[36:]))
	}
	powerOfTwo := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if b[510] != 0x55 || b[511] != 0xaa || !powerOfTwo(v.sector) || v.sector < 512 || v.sector > 4096 ||
		!powerOfTwo(v.perCluster) ||
		reserved == 0 || fats == 0 || fats > 2 || sectors == 0 || fatSectors == 0 {
		return nil, errNotFAT
	}
	v.fatStart, v.fatLength = reserved*v.sector, fatSectors*v.sector
	v.rootStart = v.fatStart + fats*v.fatLength
	v.rootLength = (rootEntries*entrySize + v.sector - 1) / v.sector * v.sector
	v.dataStart = v.rootStart + v.rootLength
	clusters := (sectors*v.sector - v.dataStart) / (v.perCluster * v.sector)
	if clusters <= 0 || clusters > 1<<28 {
		return nil, errNotFAT
	}
	v.clusters = uint32(clusters)
	switch {
	case clusters < minFAT16:
		v.bits = 12
	case clusters < maxFAT16:
		v.bits = 16
	default:
		v.bits = 32
		v.rootCluster = le.Uint32(b[44:])
	}
	return v, nil
}

// An Entry is a file or a directory.
type Entry struct {
	Name string
	Dir  bool
	Size uint32

	cluster uint32
}

// maxDirectory bounds the size of a directory; the specification allows 2 MiB.
const maxDirectory = 2 << 20

// List lists a directory; "" is the root. As in FAT, the case of names does not matter. \ or / separates
// them.
func (v *Volume) List(path string) ([]Entry, error) {
	entries, err := v.root()
	for _, name := range split(path) {
		if err != nil {
			return nil, err
		}
		e, ok := find(entries, name)
		if !ok || !e.Dir {
			return nil, fmt.Errorf("%s: directory %s: %w", path, name, fs.ErrNotExist)
		}
		var raw []byte
		if raw, err = v.chain(e.cluster, maxDirectory); err == nil {
			entries = parse(raw)
		}
	}
	return entries, err
}

// Has says whether there is a file that is not empty.
func (v *Volume) Has(path string) bool {
	e, err := v.file(path)
	return err == nil && e.Size > 0
}

// Read returns the content of a file. A file larger than limit is an error.
func (v *Volume) Read(path string, limit int64) ([]byte, error) {
	e, err := v.file(path)
	if err != nil {
		return nil, err
	}
	size := int64(e.Size)
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes, want %d at most", path, size, limit)
	}
	raw, err := v.chain(e.cluster, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(raw)) < size {
		return nil, fmt.Errorf("%s: %d bytes, its clusters hold %d", path, size, len(raw))
	}
	return raw[:size], nil
}

// file finds a file. Its error is fs.ErrNotExist when there is none.
func (v *Volume) file(path string) (Entry, error) {
	names := split(path)
	if len(names) == 0 {
		return Entry{}, fmt.Errorf("%q is no file", path)
	}
	last := len(names) - 1
	entries, err := v.List(strings.Join(names[:last], "/"))
	if err != nil {
		return Entry{}, err
	}
	e, ok := find(entries, names[last])
	if !ok || e.Dir {
		return Entry{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return e, nil
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' })
}

func find(entries []Entry, name string) (Entry, bool) {
	for _, e := range entries {
		if strings.EqualFold(e.Name, name) {
			return e, true
		}
	}
	return Entry{}, false
}

func (v *Volume) root() ([]Entry, error) {
	if v.bits == 32 {
		raw, err := v.chain(v.rootCluster, maxDirectory)
		return parse(raw), err
	}
	raw := make([]byte, min(v.rootLength, maxDirectory))
	if _, err := v.r.ReadAt(raw, v.rootStart); err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	return parse(raw), nil
}

// chain reads the clusters of a file or a directory, up to the one that reaches limit.
func (v *Volume) chain(cluster uint32, limit int64) (raw []byte, err error) {
	size := v.perCluster * v.sector
	for int64(len(raw)) < limit {
		if cluster < 2 || cluster-2 >= v.clusters {
			return raw, nil // the end mark is a number above all clusters
		}
		raw = append(raw, make([]byte, size)...)
		if _, err := v.r.ReadAt(raw[int64(len(raw))-size:], v.dataStart+int64(cluster-2)*size); err != nil {
			return nil, fmt.Errorf("cluster %d: %w", cluster, err)
		}
		if cluster, err = v.next(cluster); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// next reads a cluster's successor in the FAT ("FAT Data Structure").
func (v *Volume) next(cluster uint32) (uint32, error) {
	off, width := int64(cluster)*4, 4
	switch v.bits {
	case 12:
		off, width = int64(cluster)+int64(cluster)/2, 2
	case 16:
		off, width = int64(cluster)*2, 2
	}
	if off+int64(width) > v.fatLength {
		return 0, fmt.Errorf("cluster %d: beyond the FAT", cluster)
	}
	var b [4]byte
	if _, err := v.r.ReadAt(b[:width], v.fatStart+off); err != nil {
		return 0, fmt.Errorf("FAT: %w", err)
	}
	n := binary.LittleEndian.Uint32(b[:])
	switch {
	case v.bits == 12 && cluster%2 == 1:
		return n >> 4, nil
	case v.bits == 12:
		return n & 0xfff, nil
	case v.bits == 32:
		return n & 0x0fffffff, nil
	}
	return n, nil
}

// parse reads a directory's entries ("FAT Directory Structure", "Long Directory Entries").
func parse(raw []byte) (entries []Entry) {
	const attrDirectory = 0x10
	var long [20][]uint16
	for ; len(raw) >= entrySize; raw = raw[entrySize:] {
		e := raw[:entrySize]
		switch {
		case e[0] == 0:
			return entries
		case e[0] == 0xe5:
			long = [20][]uint16{}
			continue
		case e[11]&0x3f == attrLong:
			if n := int(e[0]&0x3f) - 1; n >= 0 && n < len(long) {
				long[n] = longPart(e)
			}
			continue
		case e[11]&attrVolume != 0:
			long = [20][]uint16{}
			continue
		}
		name := strings.TrimRight(string(e[:8]), " ")
		if ext := strings.TrimRight(string(e[8:11]), " "); ext != "" {
			name += "." + ext
		}
		var chars []uint16
		for _, part := range long {
			chars = append(chars, part...)
		}
		if len(chars) > 0 {
			name = string(utf16.Decode(chars))
		}
		long = [20][]uint16{}
		entries = append(entries, Entry{
			Name: name, Dir: e[11]&attrDirectory != 0, Size: binary.LittleEndian.Uint32(e[28:]),
			cluster: uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:])),
		})
	}
	return entries
}

func longPart(e []byte) (chars []uint16) {
	for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for i := r[0]; i < r[1]; i += 2 {
			c := binary.LittleEndian.Uint16(e[i:])
			if c == 0 {
				return chars
			}
			chars = append(chars, c)
		}
	}
	return chars
}
