// Package leases remembers which client holds which address. It loses no change: it tells its caller that a
// change is done only when the change is on the disk.
//
// A Table holds the leases of all subnets in memory. Its journal is an append-only file of records, each with
// a checksum; many changes share one sync. The package knows nothing of packets: package dhcpd decides what a
// client may ask for, and when (RFC 2131).
package leases
