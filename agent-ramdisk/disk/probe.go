package disk

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/pxectl/pxectl/internal/parttable"
)

const (
	luks2Second    = "SKUL\xba\xbe"
	bluestoreLabel = "bluestore block device"
)

// magics are signatures at fixed places, from libblkid.
var magics = []struct {
	name   string
	offset int64
	bytes  string
}{
	{"xfs", 0, "XFSB"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"luks", 0x4000, luks2Second}, // LUKS2's second header lies behind the first, which has one of nine sizes
	{"luks", 0x8000, luks2Second},
	{"luks", 0x10000, luks2Second},
	{"luks", 0x20000, luks2Second},
	{"luks", 0x40000, luks2Second},
	{"luks", 0x80000, luks2Second},
	{"luks", 0x100000, luks2Second},
	{"luks", 0x200000, luks2Second},
	{"luks", 0x400000, luks2Second},
	{"ntfs", 3, "NTFS    "},
	{"bitlocker", 3, "-FVE-FS-"},
	{"exfat", 3, "EXFAT   "},
	{"squashfs", 0, "hsqs"},
	{"bluestore", 0, bluestoreLabel},
	{"bluestore", 1 << 30, bluestoreLabel}, // Ceph Squid keeps four copies
	{"bluestore", 10 << 30, bluestoreLabel},
	{"bluestore", 100 << 30, bluestoreLabel},
	{"bluestore", 1000 << 30, bluestoreLabel},
	{"swap", 4<<10 - 10, "SWAPSPACE2"}, // at the end of a page, whose size depends on the machine
	{"swap", 8<<10 - 10, "SWAPSPACE2"},
	{"swap", 16<<10 - 10, "SWAPSPACE2"},
	{"swap", 32<<10 - 10, "SWAPSPACE2"},
	{"swap", 64<<10 - 10, "SWAPSPACE2"},
	{"btrfs", 0x10040, "_BHRfS_M"},
	{"btrfs", 64<<20 + 0x40, "_BHRfS_M"}, // the mirrors of the superblock
	{"btrfs", 256<<30 + 0x40, "_BHRfS_M"},
	{"iso9660", 0x8001, "CD001"},
	{"gfs2", 0x10000, "\x01\x16\x19\x70"},
	{"vmfs", 0x100000, "\x0d\xd0\x01\xc0"},
	{"vmfs", 0x200000, "\x0d\xd0\x01\xc0"},
	{"bcache", 0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca"},
	{"lvm2", 24, "LVM2 001"},
	{"lvm2", 512 + 24, "LVM2 001"},
	{"lvm2", 1024 + 24, "LVM2 001"},
	{"lvm2", 1536 + 24, "LVM2 001"},
	{"md", 0, "\xfc\x4e\x2b\xa9"},    // metadata 1.1
	{"md", 4096, "\xfc\x4e\x2b\xa9"}, // metadata 1.2
}

// farCopies are the places of magics beyond the cleared edges, each within a block of 4096 bytes. A repair
// tool, and sometimes the system itself, needs only one copy.
var farCopies = func() (offsets []int64) {
	for _, m := range magics {
		if block := m.offset / 4096 * 4096; block >= edge && !slices.Contains(offsets, block) {
			offsets = append(offsets, block)
		}
	}
	return offsets
}()

// probe names the signatures of a disk or a partition at offset, size bytes long.
func probe(r io.ReaderAt, offset, size int64) []string {
	at := func(off int64, n int) []byte {
		b := make([]byte, n)
		if off < 0 || off+int64(n) > size {
			return b
		}
		if got, _ := r.ReadAt(b, offset+off); got < n {
			clear(b)
		}
		return b
	}
	le := binary.LittleEndian
	var found []string
	add := func(name string) {
		if name != "" && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, m := range magics {
		if string(at(m.offset, len(m.bytes))) == m.bytes {
			add(m.name)
		}
	}
	if sb := at(1024, 256); le.Uint16(sb[0x38:]) == 0xef53 {
		add(extVersion(le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:])))
	}
	if _, ok := parttable.FATLabel(at(0, 512)); ok {
		add("vfat")
	}
	add(parttable.SeedLabel(io.NewSectionReader(r, offset, size), 0))
	// md 1.0 lies 8 to 12 KiB before the end, 0.90 in the last whole 64 KiB.
	if string(at((size/512-16)&^7*512, 4)) == "\xfc\x4e\x2b\xa9" ||
		string(at(size&^0xffff-0x10000, 4)) == "\xfc\x4e\x2b\xa9" {
		add("md")
	}
	// ZFS' first used uberblock may be any of 128; checking the first few finds most pools.
	for i := range int64(16) {
		if m := at(0x20000+i*1024, 8); le.Uint64(m) == 0x00bab10c ||
			binary.BigEndian.Uint64(m) == 0x00bab10c {
			add("zfs")
		}
	}
	return found
}

// extVersion distinguishes ext2, 3 and 4 by features, as the kernel's drivers do.
func extVersion(compat, incompat uint32) string {
	const (
		hasJournal       = 0x4
		ext4Only         = 0x40 | 0x80 | 0x200 | 0x400 // extents, 64bit, flex_bg, ea_inode
		journalDevice    = 0x8
		ext3OrOlderKnown = 0x2 | 0x4 | 0x10
	)
	switch {
	case incompat&journalDevice != 0:
		return "jbd"
	case incompat&ext4Only != 0 || incompat&^ext3OrOlderKnown != 0:
		return "ext4"
	case compat&hasJournal != 0:
		return "ext3"
	default:
		return "ext2"
	}
}

// Probe names the contents of a disk: its partition table, and the signatures of the disk and of every
// partition. It reads a few hundred small places.
func Probe(r io.ReaderAt, size int64, sector int) []string {
	found := probe(r, 0, size)
	table := parttable.Read(r, size, sector).Kind
	if table != "" && !(table == "mbr" && len(found) > 0) { // a file system's boot sector looks like an MBR
		found = append(found, table)
	}
	for _, p := range parttable.All(r, size, sector) {
		for _, name := range probe(r, p.Offset, p.Length) {
			if !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return found
}
