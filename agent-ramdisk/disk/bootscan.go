package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/pxectl/pxectl/internal/efiloader"
	"github.com/pxectl/pxectl/internal/fat"
	"github.com/pxectl/pxectl/internal/parttable"
)

// BootScan is what firmware, kernel and cloud-init use to find a system.
type BootScan struct {
	ESPs     []ESP
	Labels   []string // of seeds: "cidata", "config-2"
	BootCode bool     // the first sector has code that a BIOS would start
	ids      []string // "partition ab12…", "ext ab12…"

	Signatures [][16]byte // of partitions, as boot entries name them: see ESP
}

// An ESP is an EFI system partition.
type ESP struct {
	Number         int
	First, Sectors uint64
	Signature      [16]byte // the partition's GUID, or the four bytes of an MBR's disk
	MBR            bool
	// Fallback says that the loader exists that firmware starts without a boot entry (section 3.5.1.1 of the
	// UEFI specification). Loader is that one, or a distribution's, or "".
	Fallback bool
	Loader   string
}

// ScanBoot reads a BootScan from a disk.
func ScanBoot(r io.ReaderAt, size int64, sector int, arch string) BootScan {
	var s BootScan
	first := make([]byte, 512)
	_, _ = r.ReadAt(first, 0) // an unreadable disk has nothing to start
	s.BootCode = first[510] == 0x55 && first[511] == 0xaa &&
		slices.ContainsFunc(first[:440], func(b byte) bool { return b != 0 })
	parts := parttable.Read(r, size, sector).Partitions
	for _, p := range append(parts, parttable.Extent{Length: size}) {
		kind, id, label := filesystem(r, p.Offset)
		if id != "" {
			s.ids = append(s.ids, kind+" "+id)
		}
		if label != "" {
			s.Labels = append(s.Labels, label)
		}
		if p.Unique != [16]byte{} {
			s.Signatures = append(s.Signatures, p.Unique)
			s.ids = append(s.ids, "partition "+guidText(p.Unique))
		}
		if p.ESP() {
			e := ESP{
				Number:    p.Number,
				First:     uint64(p.Offset) / uint64(sector),
				Sectors:   uint64(p.Length) / uint64(sector),
				Signature: p.Unique,
			}
			if p.MBR == parttable.EFI {
				e.MBR = true
				copy(e.Signature[:], first[440:444])
				s.Signatures = append(s.Signatures, e.Signature)
			}
			if v, err := fat.Open(io.NewSectionReader(r, p.Offset, p.Length)); err == nil {
				e.Fallback, e.Loader = efiloader.Find(v, arch)
			}
			s.ESPs = append(s.ESPs, e)
		}
	}
	return s
}

// filesystem reads the UUID of the filesystem at an offset, and its label if cloud-init looks for it.
func filesystem(r io.ReaderAt, off int64) (kind, id, label string) {
	b := make([]byte, 0x10060)
	n, _ := r.ReadAt(b, off)
	clear(b[n:])
	switch {
	case binary.LittleEndian.Uint16(b[1024+0x38:]) == 0xef53:
		return "ext", fmt.Sprintf("%x", b[1024+104:][:16]), ""
	case string(b[:4]) == "XFSB":
		return "xfs", fmt.Sprintf("%x", b[32:48]), ""
	case string(b[0x10040:0x10048]) == "_BHRfS_M":
		return "btrfs", fmt.Sprintf("%x", b[0x10020:0x10030]), ""
	case string(b[0x8001:0x8006]) == "CD001":
		return "iso9660", "", parttable.SeedLabel(r, off)
	}
	if _, ok := parttable.FATLabel(b[:512]); ok {
		id := b[39:43] // FAT12 and 16
		if string(b[82:87]) == "FAT32" {
			id = b[67:71]
		}
		return "vfat", fmt.Sprintf("%x", id), parttable.SeedLabel(r, off)
	}
	return "", "", ""
}

// guidText is the text form of a GUID (appendix A of the UEFI specification).
func guidText(g [16]byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10],
		g[10:])
}

// Conflicts lists the systems on another disk of the machine that may start, or may be taken for a part of
// the system, instead of those on this disk.
func (s BootScan) Conflicts(disk string, other BootScan, uefi bool) (warnings []string) {
	const advice = "; clear that disk, or take it out, if it is not wanted"
	for _, id := range other.ids {
		if slices.Contains(s.ids, id) {
			warnings = append(warnings,
				fmt.Sprintf("disk %s holds a copy of a part of the new system (%s): "+
					"the kernel may mount that one%s", disk, id, advice))
			break
		}
	}
	if len(other.Labels) > 0 {
		warnings = append(warnings,
			fmt.Sprintf("disk %s has a filesystem labelled %s: cloud-init may read that one and not the "+
				"new seed%s", disk, other.Labels[0], advice))
	}
	for _, e := range other.ESPs {
		if uefi && e.Fallback {
			warnings = append(warnings,
				fmt.Sprintf("disk %s has an EFI system partition with %s: the firmware may start that one%s",
					disk, e.Loader, advice))
			break
		}
	}
	if !uefi && other.BootCode {
		warnings = append(warnings,
			fmt.Sprintf("disk %s has boot code in its first sector: the BIOS may start that one%s", disk,
				advice))
	}
	return warnings
}
