// Package contents says what is in a disk image, from its bytes alone: the partition table, the boot
// loaders on the EFI system partition, and which operating system lies in the root file system.
// Nothing is mounted and nothing is executed.
//
// What it says informs people and decides nothing, so what cannot be read is left out and is
// no error. An image comes from anybody: every look at it is bounded, in bytes and in steps.
//
// It follows the UEFI specification (sections 5.3 and 13.3: GPT, and FAT with the removable path),
// Microsoft's FAT specification 1.03, and Linux's Documentation/filesystems/ext4. XFS, Btrfs, LVM and
// LUKS are named and not opened.
package contents
