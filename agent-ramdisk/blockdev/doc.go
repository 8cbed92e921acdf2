// Package blockdev opens disks and reads and writes them past the page cache. It flushes and discards them,
// and has the kernel read their partition tables again. Writing an image (package disk) and erasing (package
// erase) stand on it.
package blockdev
