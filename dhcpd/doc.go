// Package dhcpd tells network-booting machines what to boot, beside a DHCP server that
// hands out the addresses: the proxyDHCP of the PXE specification 2.1 on UDP ports 67
// and 4011, and its UEFI HTTP boot counterpart (UEFI 2.10 section 24.7).
//
// A packet passes three plain functions: classify says what the client is, unwanted
// says why it gets no answer, and answer builds the one that its class understands.
// The Decider, which is not ours, says what to boot. The loop in server.go does the
// I/O and nothing else.
//
// It never hands out an address, and DHCP clients that are not booting from the
// network never hear from it: they are only reported as seen.
package dhcpd
