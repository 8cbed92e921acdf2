// Package hardware reads the hardware of a machine: SMBIOS, CPU, memory, disks, network cards, PCI and the
// BMC's LAN address. It reads sysfs and /proc below a root, which tests replace. It never fails as a whole:
// Report.Problems names what could not be read.
//
// SMBIOS is DMTF DSP0134; BMC commands are IPMI 2.0, sections 20.1 and 23.2.
package hardware
