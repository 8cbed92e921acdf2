// Package dhcpd tells network-booting machines what to boot. In proxy mode it runs beside a DHCP server that
// hands out the addresses: it is the proxyDHCP of the PXE specification 2.1 on UDP ports 67 and 4011, and its
// UEFI HTTP boot counterpart (UEFI 2.10 section 24.7). In this mode it never hands out an address. It does
// not answer DHCP clients that do not boot from the network; it only reports that it saw them.
//
// In server mode it is the DHCP server: RFC 2131, with the options of RFC 2132 and 3442, relays (RFC 3046,
// 3527, 5107) and client identifiers (RFC 6842). A client that boots from the network gets its address and
// what to boot in one answer. Package leases keeps the leases. The server sends an ACK only when its lease is
// on the disk.
//
// In proxy mode a packet passes three plain functions: classify says what the client is, unwanted says why it
// gets no answer, and answer builds the one that its class understands. In server mode, locate says who and
// where the client is, and leaseServer has one method for each message of RFC 2131 section 4.3. In both modes
// the caller's Decider says what to boot. The loop in server.go does the I/O and nothing else.
package dhcpd
