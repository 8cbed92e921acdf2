package disk

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
)

const (
	luks2Second    = "SKUL\xba\xbe"
	bluestoreLabel = "bluestore block device"
)

// magics are signatures at fixed places, as libblkid knows them.
var magics = []struct {
	name   string
	offset int64
	bytes  string
}{
	{"xfs", 0, "XFSB"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"luks", 0x4000, luks2Second}, // LUKS2's second header lies behind a first one of one of nine sizes
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
	{"swap", 4<<10 - 10, "SWAPSPACE2"}, // at the end of a page, of the size that the machine had
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

// farCopies are where magics lie that clearing the edges does not reach, each within a block of 4096 bytes. A copy is
// enough for a tool that repairs, and for some for a system to be found.
var farCopies = func() (offsets []int64) {
	for _, m := range magics {
		if block := m.offset / 4096 * 4096; block >= edge && !slices.Contains(offsets, block) {
			offsets = append(offsets, block)
		}
	}
	return offsets
}()

// probe names the signatures of what starts at offset and is size bytes long: a disk or a partition.
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
	boot := at(0, 512)
	if label, ok := fatLabel(boot); ok {
		add("vfat")
		add(seedLabel(label))
	}
	if slices.Contains(found, "iso9660") {
		add(seedLabel(string(at(0x8028, 32))))
	}
	// md 1.0 lies 8 to 12 KiB before the end, 0.90 in the last whole 64 KiB.
	if string(at((size/512-16)&^7*512, 4)) == "\xfc\x4e\x2b\xa9" || string(at(size&^0xffff-0x10000, 4)) == "\xfc\x4e\x2b\xa9" {
		add("md")
	}
	// The first of ZFS' uberblocks that is in use may be any of 128; the first few tell most pools.
	for i := range int64(16) {
		if m := at(0x20000+i*1024, 8); le.Uint64(m) == 0x00bab10c || binary.BigEndian.Uint64(m) == 0x00bab10c {
			add("zfs")
		}
	}
	return found
}

// extVersion tells ext2, 3 and 4 apart by features, as the kernel's drivers do.
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

// fatLabel reads the label of a FAT boot sector. ok is false when it is none.
func fatLabel(boot []byte) (label string, ok bool) {
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

// seedLabel is the label when it is one that cloud-init looks for, and nothing otherwise.
func seedLabel(label string) string {
	switch l := strings.ToLower(strings.TrimRight(label, " \x00")); l {
	case "cidata", "config-2":
		return l
	}
	return ""
}

// Probe names what lies on a disk: its partition table, and the signatures of the disk and of
// every partition. It reads a few hundred small places.
func Probe(r io.ReaderAt, size int64, sector int) []string {
	found := probe(r, 0, size)
	table, parts := partitions(r, size, sector)
	if table != "" && !(table == "mbr" && len(found) > 0) { // a file system's boot sector looks like an MBR
		found = append(found, table)
	}
	for _, p := range parts {
		for _, name := range probe(r, p.offset, p.length) {
			if !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return found
}

// An extent is where a partition lies, in bytes, and what its table says of it.
type extent struct {
	offset, length int64
	number         int
	name           string   // in a GPT
	kind, unique   [16]byte // in a GPT
	mbr            byte     // its type in an MBR
}

// esp says whether a partition is an EFI system partition.
func (e extent) esp() bool { return e.kind == efiSystem || e.mbr == mbrEFI }

// efiSystem is the type of EFI system partitions, table 5-7.
var efiSystem = guid("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")

// partitions lists partitions of a disk by whichever table it has: the GPT, its backup when
// the first is damaged, or the MBR.
func partitions(r io.ReaderAt, size int64, sector int) (table string, parts []extent) {
	sectors := uint64(size) / uint64(sector)
	if sectors < 4 {
		return "", nil
	}
	for _, lba := range []uint64{1, sectors - 1} {
		g, err := readGPT(r, sector, lba)
		if err != nil {
			continue
		}
		list, err := g.partitions(sectors)
		if err != nil {
			continue
		}
		for _, p := range list {
			parts = append(parts, extent{
				offset: int64(p.First) * int64(sector), length: int64(p.Last-p.First+1) * int64(sector),
				number: p.Number, name: p.Name, kind: p.Type, unique: p.Unique,
			})
		}
		return "gpt", parts
	}
	mbr, ok := readMBR(r, 0)
	if !ok {
		return "", nil
	}
	return "mbr", mbr.partitions(r, sectors, sector)
}
