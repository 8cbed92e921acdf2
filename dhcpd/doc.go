// Package dhcpd tells network-booting machines what to boot. In proxy mode it does so
// beside a DHCP server that hands out the addresses: the proxyDHCP of the PXE
// specification 2.1 on UDP ports 67 and 4011, and its UEFI HTTP boot counterpart (UEFI
// 2.10 section 24.7). It never hands out an address then, and DHCP clients that are not
// booting from the network never hear from it: they are only reported as seen.
//
// In server mode it is the DHCP server: RFC 2131, with the options of RFC 2132 and 3442,
// relays (RFC 3046, 3527, 5107) and client identifiers (RFC 6842). A client that boots
// from the network gets its address and what to boot in one answer. Leases are kept by
// package leases; an ACK leaves when its lease is on the disk.
//
// A packet of proxy mode passes three plain functions: classify says what the client is,
// unwanted says why it gets no answer, and answer builds the one that its class
// understands. In server mode, locate says who and where the client is, and one method
// of leaseServer for each message of section 4.3 decides. The Decider, which is not ours,
// says what to boot. The loop in server.go does the I/O and nothing else.
package dhcpd
