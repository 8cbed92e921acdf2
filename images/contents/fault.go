package contents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// FindFault says why no machine could start from an image, or why a deployment of it would fail. It returns
// "" when it finds nothing.
func FindFault(r io.ReaderAt, t Table, s Software) string {
	switch {
	case t.Kind == "":
		return "it has no partition table, so nothing can start from it; it looks like " + LooksLike(r)
	case t.Fault != "":
		return "nothing could be deployed from it: " + t.Fault
	case len(t.Partitions) == 0:
		return "its partition table is empty, so nothing can start from it"
	case !t.BootCode && !t.HasESP() && len(s.Loaders) == 0:
		return "nothing can start from it: there is no boot code in its first sector, " +
			"and no EFI system partition"
	}
	return ""
}

// lookalikes are files that people mistake for a disk image, with bytes at fixed places.
var lookalikes = []struct {
	offset int64
	magic  string
	what   string
}{
	{0x8001, "CD001", "an ISO 9660 image: an installer or a live system, which is no installed disk"},
	{0, "hsqs", "a squashfs file system"},
	{0, "XFSB", "an XFS file system without a disk around it"},
	{1024 + 56, "\x53\xef", "an ext2, ext3 or ext4 file system without a disk around it"},
	{64<<10 + 64, "_BHRfS_M", "a btrfs file system without a disk around it"},
	{512, "LABELONE", "an LVM volume"},
	{0, "LUKS\xba\xbe", "a LUKS volume: import the disk that it lies on"},
	{3, "NTFS    ", "an NTFS file system without a disk around it"},
	{3, "EXFAT   ", "an exFAT file system without a disk around it"},
	{54, "FAT1", "a FAT file system without a disk around it"},
	{82, "FAT32", "a FAT file system without a disk around it"},
	{0, "070701", "a cpio archive: an initramfs?"},
	{0, "070702", "a cpio archive: an initramfs?"},
	{0, "070707", "a cpio archive"},
	{0, "\xc7\x71", "a cpio archive"},
	{0x28, "_FVH", "a UEFI firmware volume (OVMF?)"},
	{0x202, "HdrS", "a Linux kernel"},
	{0, "MZ", "an EFI or Windows program"},
	{0, "\x7fELF", "an ELF program"},
	{0, "!<arch>\n", "a Debian package, or a library"},
	{0, "\xed\xab\xee\xdb", "an RPM package"},
	{0, "\xd0\x0d\xfe\xed", "a device tree"},
}

// LooksLike names the kind of a file that is not a disk image.
func LooksLike(r io.ReaderAt) string {
	for _, l := range lookalikes {
		b := make([]byte, len(l.magic))
		if n, _ := r.ReadAt(b, l.offset); n == len(b) && string(b) == l.magic {
			return l.what
		}
	}
	head := make([]byte, 64<<10)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "nothing that can be read"
	}
	// The store fills up an image's last sector with zeros.
	switch text := bytes.TrimRight(head[:n], "\x00"); {
	case len(text) == 0:
		return "an empty disk"
	case utf8.Valid(text) &&
		bytes.IndexFunc(text,
			func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' && c != '\r' }) < 0:
		return "a text file"
	case distinct(text) > 250:
		return "compressed, encrypted or random bytes"
	}
	return fmt.Sprintf("nothing that is known (it begins with % x)", head[:min(n, 8)])
}

// distinct counts the different values of bytes.
func distinct(b []byte) (n int) {
	var seen [256]bool
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}
