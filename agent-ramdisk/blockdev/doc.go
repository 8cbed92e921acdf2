// Package blockdev opens disks, reads and writes them past the page cache, flushes and discards them, and
// makes the kernel read their partition tables again. Packages disk (writing an image) and erase use it.
package blockdev
