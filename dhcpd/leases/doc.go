// Package leases remembers which client holds which address. It loses nothing: a caller hears that a change
// is done when it is on the disk.
//
// A Table is the memory of all subnets; its journal is an append-only file of records,
// each with a checksum, that many changes share one fsync of. The package knows nothing
// of packets: what a client may ask for, and when, is RFC 2131's business and is
// decided by package dhcpd.
package leases
