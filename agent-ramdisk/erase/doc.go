// Package erase erases a disk, and proves it by reading back.
//
// It tries methods in order and stops at the first one that the disk supports and that is proved: NVMe
// sanitize, NVMe format with secure erase, ATA secure erase, SCSI sanitize, discard, overwriting with zeros.
// It passes over a method that the disk does not know, and the record says so. A method that begins and fails
// is an error.
//
// It erases one whole disk, which the caller chose. The commands are those of the NVM Express Base
// Specification 1.4, ACS-3 (security feature set), SBC-4 (SANITIZE) and SAT-3 (ATA PASS-THROUGH), sent with
// ioctls of our own.
package erase
