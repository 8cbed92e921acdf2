package contents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ext4 finds and reads small files (Linux, Documentation/filesystems/ext4). It does not replay the journal:
// an image that was not unmounted may show an older state.
type ext4 struct {
	r         io.ReaderAt
	block     int64
	inodeSize int64
	perGroup  uint32
	inodes    uint32
	groups    int64 // offset of the group descriptors
	descSize  int64
	steps     int // remaining reads, so that a damaged tree does not lead us in circles
}

// errNotThere says that a path does not exist. Any other error says that it could not be followed.
var errNotThere = errors.New("no such file")

const (
	maxSteps   = 5000
	maxSymlink = 4096
	maxDirSize = 8 << 20
)

func openExt4(r io.ReaderAt) (*ext4, error) {
	sb := make([]byte, 1024)
	if _, err := r.ReadAt(sb, 1024); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	const (
		// Features that do not change what this reader reads: file types, journal, extents, 64 bits, MMP,
		// flexible groups, values of attributes in inodes, a seed of checksums, large directories, folded
		// names, and two that mark single inodes, which are then refused: inline data and encryption.
		known   = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
		wide    = 0x80
		oldSize = 128
	)
	logBlock, features := le.Uint32(sb[24:]), le.Uint32(sb[96:])
	switch {
	case le.Uint16(sb[56:]) != 0xef53 || logBlock > 6:
		return nil, errors.New("ext4: no superblock")
	case features&^known != 0:
		return nil, fmt.Errorf("ext4: features %#x", features&^known)
	}
	f := &ext4{
		r: r, block: 1024 << logBlock, inodeSize: oldSize, descSize: 32,
		inodes: le.Uint32(sb), perGroup: le.Uint32(sb[40:]), steps: maxSteps,
	}
	if le.Uint32(sb[76:]) > 0 {
		f.inodeSize = int64(le.Uint16(sb[88:]))
	}
	if features&wide != 0 {
		f.descSize = int64(le.Uint16(sb[254:]))
	}
	if f.inodeSize < oldSize || f.inodeSize > f.block || f.descSize < 32 || f.descSize > 1024 ||
		f.perGroup == 0 {
		return nil, errors.New("ext4: nonsense in the superblock")
	}
	f.groups = (int64(le.Uint32(sb[20:])) + 1) * f.block // behind the superblock's block
	return f, nil
}

func (f *ext4) readAt(b []byte, off int64) error {
	if f.steps--; f.steps < 0 {
		return errors.New("ext4: too much to read")
	}
	if off < 0 {
		return errors.New("ext4: a block beyond any disk")
	}
	_, err := f.r.ReadAt(b, off)
	return err
}

// An inode is a file. raw is the part that every ext version has.
type inode struct{ raw [128]byte }

const rootInode = 2

func (n *inode) mode() uint16  { return binary.LittleEndian.Uint16(n.raw[:]) >> 12 }
func (n *inode) flags() uint32 { return binary.LittleEndian.Uint32(n.raw[32:]) }
func (n *inode) size() int64 {
	return int64(binary.LittleEndian.Uint32(n.raw[4:])) |
		int64(binary.LittleEndian.Uint32(n.raw[108:])&(1<<30-1))<<32
}

// The upper four bits of i_mode, and flags of i_flags.
const (
	isDir, isFile, isLink           = 4, 8, 10
	inExtents, inlineData, isSecret = 0x80000, 0x10000000, 0x800
)

func (f *ext4) inode(number uint32) (*inode, error) {
	if number == 0 || number > f.inodes {
		return nil, fmt.Errorf("ext4: inode %d of %d", number, f.inodes)
	}
	group, index := int64((number-1)/f.perGroup), int64((number-1)%f.perGroup)
	desc := make([]byte, f.descSize)
	if err := f.readAt(desc, f.groups+group*f.descSize); err != nil {
		return nil, err
	}
	table := int64(binary.LittleEndian.Uint32(desc[8:]))
	if f.descSize >= 64 {
		table |= int64(binary.LittleEndian.Uint32(desc[40:])) << 32
	}
	n := new(inode)
	if table > 1<<48/f.block {
		return nil, errors.New("ext4: inodes beyond any disk")
	}
	return n, f.readAt(n.raw[:], table*f.block+index*f.inodeSize)
}

// find follows a path, through symbolic links.
func (f *ext4) find(path string) (*inode, error) {
	const maxLinks = 8
	rest := strings.Split(path, "/")
	trail := []uint32{rootInode} // the directories on the path so far
	n, err := f.inode(rootInode)
	for links := 0; len(rest) > 0 && err == nil; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			trail = trail[:max(1, len(trail)-1)]
			n, err = f.inode(trail[len(trail)-1])
			continue
		}
		var number uint32
		if number, err = f.lookup(n, name); err != nil {
			break
		}
		next, err2 := f.inode(number)
		if err2 != nil {
			return nil, err2
		}
		if next.mode() == isLink {
			if links++; links > maxLinks {
				return nil, errors.New("ext4: too many symbolic links")
			}
			target, err := f.content(next, maxSymlink)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(string(target), "/") {
				trail = trail[:1]
				if n, err = f.inode(rootInode); err != nil {
					return nil, err
				}
			}
			rest = append(strings.Split(string(target), "/"), rest...)
			continue
		}
		trail, n = append(trail, number), next
	}
	return n, err
}

// read reads the first most bytes of a regular file.
func (f *ext4) read(path string, most int64) ([]byte, error) {
	n, err := f.find(path)
	if err != nil {
		return nil, err
	}
	if n.mode() != isFile {
		return nil, fmt.Errorf("ext4: %s is no regular file", path)
	}
	return f.content(n, most)
}

func (f *ext4) lookup(dir *inode, name string) (uint32, error) {
	if dir.mode() != isDir {
		return 0, errNotThere
	}
	if dir.size() > maxDirSize {
		return 0, errors.New("ext4: a directory that is too large")
	}
	b, err := f.content(dir, maxDirSize)
	if err != nil {
		return 0, err
	}
	// Read entry after entry, even in a hash tree: its nodes look like empty entries by design.
	le := binary.LittleEndian
	for len(b) >= 8 {
		number, length, nameLen := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
		if length < 8 || length > len(b) || 8+nameLen > length {
			return 0, errors.New("ext4: a damaged directory")
		}
		if number != 0 && string(b[8:8+nameLen]) == name {
			return number, nil
		}
		b = b[length:]
	}
	return 0, errNotThere
}

// content reads the first most bytes of a file, directory or link.
func (f *ext4) content(n *inode, most int64) ([]byte, error) {
	size := min(n.size(), most)
	if n.mode() == isLink && n.size() < 60 && n.flags()&inExtents == 0 {
		return n.raw[40 : 40+size], nil
	}
	if n.flags()&(inlineData|isSecret) != 0 {
		return nil, errors.New("ext4: encrypted, or inside the inode")
	}
	// Read block by block, so that memory grows only with bytes that were read.
	var out []byte
	for i := int64(0); i*f.block < size; i++ {
		at, err := f.blockOf(n, uint32(i))
		if err != nil {
			return nil, err
		}
		b := make([]byte, f.block)
		if at != 0 {
			err = f.readAt(b, at*f.block)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out[:size], nil
}

// blockOf returns the place of block i of a file, 0 for a hole.
func (f *ext4) blockOf(n *inode, i uint32) (int64, error) {
	le := binary.LittleEndian
	if n.flags()&inExtents == 0 {
		if i < 12 {
			return int64(le.Uint32(n.raw[40+4*i:])), nil
		}
		return 0, errors.New("ext4: a large file in the old format")
	}
	node := n.raw[40:100]
	for range 6 { // no tree is deeper than 5
		if le.Uint16(node) != 0xf30a {
			return 0, errors.New("ext4: a damaged tree of extents")
		}
		count, depth := int(le.Uint16(node[2:])), le.Uint16(node[6:])
		if 12+12*count > len(node) {
			return 0, errors.New("ext4: a damaged tree of extents")
		}
		var e []byte // the last one that begins at or before i
		for k := range count {
			if at := node[12+12*k:][:12]; le.Uint32(at) <= i {
				e = at
			}
		}
		if e == nil {
			return 0, nil
		}
		if depth == 0 {
			const unwritten = 32768 // a length above that is of an unwritten extent, which reads zeros
			length, into := uint32(le.Uint16(e[4:])), i-le.Uint32(e)
			if length > unwritten || into >= length {
				return 0, nil
			}
			return int64(le.Uint16(e[6:]))<<32 + int64(le.Uint32(e[8:])) + int64(into), nil
		}
		below := int64(le.Uint16(e[8:]))<<32 + int64(le.Uint32(e[4:]))
		node = make([]byte, f.block)
		if err := f.readAt(node, below*f.block); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("ext4: a tree of extents without an end")
}
