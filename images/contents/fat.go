package contents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// errNotThere says that a path leads nowhere; any other error that it could not be followed.
var errNotThere = errors.New("no such file")

// fat reads directories of a FAT file system (Microsoft's FAT specification 1.03). Short names do: those of
// the removable path fit.
type fat struct {
	r           io.ReaderAt
	bits        int   // 12, 16 or 32
	table       int64 // where the first FAT lies
	root        int64 // FAT12 and 16: the root directory, in a place of its own
	rootBytes   int64
	rootCluster uint32 // FAT32
	data        int64  // cluster 2
	cluster     int64
	clusters    uint32
}

// maxDir bounds how much of a directory is read.
const maxDir = 256 << 10

func openFAT(r io.ReaderAt) (*fat, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, fats, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, size := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if size == 0 {
		size = int64(le.Uint32(b[36:]))
	}
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || fats == 0 || size == 0 {
		return nil, errors.New("fat: nonsense in the boot sector")
	}
	f := &fat{r: r, table: reserved * sector, cluster: perCluster * sector}
	f.root = (reserved + fats*size) * sector
	f.rootBytes = rootEntries * 32
	rootSectors := (f.rootBytes + sector - 1) / sector
	f.data = f.root + rootSectors*sector
	count := (sectors*sector - f.data) / f.cluster
	if count <= 0 || count > 1<<28 {
		return nil, fmt.Errorf("fat: %d clusters", count)
	}
	// The number of clusters alone decides which FAT it is (section "FAT Type Determination").
	f.clusters = uint32(count)
	switch {
	case count < 4085:
		f.bits = 12
	case count < 65525:
		f.bits = 16
	default:
		f.bits, f.rootCluster = 32, le.Uint32(b[44:])
	}
	return f, nil
}

// list gives the short names in a directory.
func (f *fat) list(path ...string) ([]string, error) {
	dir, err := f.rootDir()
	for _, name := range path {
		if err != nil {
			return nil, err
		}
		cluster, ok := entries(dir)[name+"/"]
		if !ok {
			return nil, fmt.Errorf("%s: %w", name, errNotThere)
		}
		dir, err = f.chain(cluster)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range entries(dir) {
		names = append(names, name)
	}
	return names, nil
}

func (f *fat) rootDir() ([]byte, error) {
	if f.bits == 32 {
		return f.chain(f.rootCluster)
	}
	dir := make([]byte, min(f.rootBytes, maxDir))
	_, err := f.r.ReadAt(dir, f.root)
	return dir, err
}

// chain reads a directory by its clusters.
func (f *fat) chain(cluster uint32) ([]byte, error) {
	var dir []byte
	for cluster >= 2 && cluster < f.clusters+2 && len(dir) < maxDir {
		b := make([]byte, min(f.cluster, maxDir))
		if _, err := f.r.ReadAt(b, f.data+int64(cluster-2)*f.cluster); err != nil {
			return nil, err
		}
		dir = append(dir, b...)
		var err error
		if cluster, err = f.next(cluster); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

func (f *fat) next(cluster uint32) (uint32, error) {
	var b [4]byte
	le, n := binary.LittleEndian, int64(cluster)
	switch f.bits {
	case 12:
		_, err := f.r.ReadAt(b[:2], f.table+n+n/2)
		return uint32(le.Uint16(b[:]) >> (4 * (n & 1)) & 0xfff), err
	case 16:
		_, err := f.r.ReadAt(b[:2], f.table+2*n)
		return uint32(le.Uint16(b[:])), err
	}
	_, err := f.r.ReadAt(b[:], f.table+4*n)
	return le.Uint32(b[:]) &^ (0xf << 28), err
}

// entries gives the first cluster of each short name in a directory; those of directories end in a slash.
func entries(dir []byte) map[string]uint32 {
	found := map[string]uint32{}
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		const volume, directory = 0x08, 0x10 // a piece of a long name is marked as volume too
		if dir[0] == 0xe5 || dir[11]&volume != 0 {
			continue
		}
		name := strings.TrimRight(string(dir[:8]), " ")
		if ext := strings.TrimRight(string(dir[8:11]), " "); ext != "" {
			name += "." + ext
		}
		if dir[11]&directory != 0 {
			name += "/"
		}
		le := binary.LittleEndian
		found[name] = uint32(le.Uint16(dir[20:]))<<16 | uint32(le.Uint16(dir[26:]))
	}
	return found
}
