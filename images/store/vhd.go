package store

import "encoding/binary"

// footerSize is that of a VHD's footer (Virtual Hard Disk Image Format Specification, "Hard Disk Footer
// Format"). A VHD of fixed size is a raw image with a footer behind it, which is no part of the disk. A
// growing VHD has a copy in front, by which it is refused.
const footerSize = 512

// isFooter says whether b is the footer of a VHD of fixed size (disk type 2) that holds a disk of size bytes.
func isFooter(b []byte, size int64) bool {
	if len(b) != footerSize {
		return false
	}
	be := binary.BigEndian
	var sum uint32
	for i, c := range b {
		if i < 64 || i >= 68 {
			sum += uint32(c)
		}
	}
	return string(b[:8]) == "conectix" && be.Uint32(b[60:]) == 2 && be.Uint32(b[64:]) == ^sum &&
		be.Uint64(b[48:]) == uint64(size)
}
