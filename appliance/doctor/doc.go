// Package doctor looks at the appliance's own house: interfaces, ports, other DHCP servers, ramdisk, images,
// BMCs, clock, disk and permissions. What it finds wrong comes with the next move.
package doctor
