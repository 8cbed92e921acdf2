// Package hardware reads what a machine is made of: SMBIOS, CPU, memory, disks, network
// cards, PCI and the BMC's LAN address. It reads sysfs and /proc below a root that tests replace, and
// never fails as a whole: what could not be read is named in Report.Problems.
//
// SMBIOS is DMTF DSP0134; BMC commands are IPMI 2.0, sections 20.1 and 23.2.
package hardware
