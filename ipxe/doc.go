// Package ipxe serves a machine between its firmware and its kernel: network boot programs (iPXE, by client
// architecture), the scripts that iPXE runs, and the HTTP handler for both, the kernel and the ramdisk.
//
// It decides nothing about a machine: a Decider does, and may not block. It speaks no DHCP and no TFTP; dhcpd
// and tftpd ask it for names and bytes through functions.
//
// Architecture codes follow RFC 4578 section 2.1 and the IANA registry "Processor Architecture Types";
// scripts follow ipxe.org/cmd, restricted to commands that the oldest option ROM in use has (QEMU ships iPXE
// of January 2019, built without PARAM, VLAN and PCI).
package ipxe
