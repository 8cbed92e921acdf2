// Package efi keeps an entry for the new system in the firmware's boot menu, through Linux' efivarfs.
//
// Variables and load options are those of the UEFI specification 2.10, sections 3.1.3 and 3.3, device paths
// those of section 10.3. It changes entries with our label, removes those for partitions of erased disks, and
// changes their places in BootOrder. It changes nothing else.
package efi
