// Package contents reads a disk image's partition table, boot loaders and operating system from its bytes
// alone. It mounts nothing and executes nothing.
//
// Its findings inform people and decide nothing, so it leaves out what it cannot read and reports no error.
// An image comes from anybody: every read is bounded, in bytes and in steps.
//
// It follows the UEFI specification (sections 5.3 and 13.3: GPT, and FAT with the removable path),
// Microsoft's FAT specification 1.03, and Linux's Documentation/filesystems/ext4. XFS, Btrfs, LVM and
// LUKS are named and not opened.
package contents
