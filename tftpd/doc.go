// Package tftpd serves boot files to firmware over TFTP, read only: RFC 1350 with the blksize and tsize
// options (RFC 2347, 2348, 2349).
//
// It knows no files of its own: an Opener says what a name means. Names are normalised first, because
// firmware adds characters to them. It is not a general file server: files are small and in memory, writing
// is refused, and a kernel or an image belongs on HTTP.
//
// A request starts no transfer until its client has acknowledged the first answer, and so proved its address
// (exchange.go). Then pin/tftp sends the file; it reads and writes through a connection of ours (engine.go).
// That library has no windowsize (RFC 7440) and ignores the timeout option, so a client that asks for those
// gets a slower transfer, not a failed one; docs/decisions/0002-tftp-windowsize.md has what that costs. A
// client whose transfer stalls gets smaller blocks at its next try (stall.go). When a client floods the port,
// the kernel drops most of its requests for a minute (floodfilter.go).
package tftpd
