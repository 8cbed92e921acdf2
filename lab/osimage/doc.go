// Package osimage builds the operating systems that the virtual rack deploys: a real Debian 12 with
// cloud-init, and "mini", one static program on a kernel that behaves like cloud-init towards the deployer
// and boots in a fraction of the time.
//
// Both are raw disk images with one layout (see layout.go), boot on BIOS and on UEFI through
// GRUB, and take their identity from a NoCloud seed on the partition "cidata", which the
// deployer overwrites. Without a seed of their own they boot as "unseeded".
//
// It is for tests and demonstrations, not a way to make images for a site. It uses Debian's own
// tools (mmdebstrap, mke2fs, mkfs.vfat, mtools, grub-mkimage, sgdisk) and neither mounts
// anything nor needs loop devices.
package osimage
