// Package erase makes a disk forget what was on it, and proves it by reading back.
//
// It climbs down a list and stops at the first method that the disk can do and that is proved: NVMe sanitize,
// NVMe format with secure erase, ATA secure erase, SCSI sanitize, discard, overwriting with zeros. A method
// that the disk does not know is passed over, and the record says so; one that begins and fails is an error.
//
// It erases one whole disk that somebody else chose. The commands are those of the NVM Express Base
// Specification 1.4, ACS-3 (security feature set), SBC-4 (SANITIZE) and SAT-3 (ATA PASS-THROUGH), sent with
// ioctls of our own.
package erase
