// Package doctor checks the appliance itself: interfaces, ports, other DHCP servers, ramdisk, images, BMCs,
// clock, disk and permissions. Each fault comes with the next move.
package doctor
