package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ATA commands (ACS-3 section 7).
const (
	ataIdentify        = 0xec
	ataSetPassword     = 0xf1
	ataErasePrepare    = 0xf3
	ataEraseUnit       = 0xf4
	ataDisablePassword = 0xf6
)

// Protocols of ATA PASS-THROUGH (SAT-3 table 151).
const (
	ataNonData = 3
	ataPIOIn   = 4
	ataPIOOut  = 5
)

// ataCDB wraps an ATA command into ATA PASS-THROUGH(16), 85h (SAT-3 section 12.2.2). Data is one sector or
// none.
func ataCDB(command, protocol uint8) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x85, protocol<<1
	switch protocol {
	case ataPIOIn:
		cdb[2], cdb[6] = 1<<3|1<<2|2, 1 // from the drive, in blocks, as many as the count says: one
	case ataPIOOut:
		cdb[2], cdb[6] = 1<<2|2, 1
	}
	cdb[14] = command
	return cdb
}

// ataSecurity is the security feature set in IDENTIFY DEVICE (ACS-3 section 7.12.7, words 82, 89, 90 and
// 128).
type ataSecurity struct {
	supported, enabled, locked, frozen, expired, enhanced bool
	normally, thoroughly                                  time.Duration // of a normal and of an enhanced erase
}

func parseSecurity(id []byte) ataSecurity {
	word := func(n int) uint16 { return binary.LittleEndian.Uint16(id[2*n:]) }
	w := word(128)
	return ataSecurity{
		supported: word(82)&2 != 0 && w&1 != 0, enabled: w&2 != 0, locked: w&4 != 0, frozen: w&8 != 0,
		expired: w&16 != 0, enhanced: w&32 != 0,
		normally: eraseTime(word(89)), thoroughly: eraseTime(word(90)),
	}
}

// eraseTime counts in units of two minutes: in 15 bits when bit 15 is set, in 8 otherwise.
func eraseTime(w uint16) time.Duration {
	n := w & 0xff
	if w&0x8000 != 0 {
		n = w & 0x7fff
	}
	return time.Duration(n) * 2 * time.Minute
}

// password is set for the erase only; the drive forgets it with its data.
const password = "pxectl-erase"

// passwordBlock is the data of SECURITY SET PASSWORD, ERASE UNIT and DISABLE PASSWORD (ACS-3 tables 147 to
// 151): the identifier in bit 0 of word 0 is user, and for an erase bit 1 is enhanced.
func passwordBlock(enhanced bool) []byte {
	b := make([]byte, 512)
	if enhanced {
		b[0] = 2
	}
	copy(b[2:34], password)
	return b
}

// ataErase sets a password and erases with SECURITY ERASE UNIT.
func (d *disk) ataErase(ctx context.Context) error {
	id := make([]byte, 512)
	if err := d.scsi.send(ataCDB(ataIdentify, ataPIOIn), id, fromDrive, 30*time.Second); err != nil {
		return passed("it is no ATA drive, or hidden behind a controller: %v", err)
	}
	s := parseSecurity(id)
	switch {
	case !s.supported:
		return passed("the drive has no security feature set")
	case s.locked:
		return errors.New("the drive is locked with somebody's password")
	case s.expired:
		return errors.New("the drive counts no more passwords until it is switched off and on")
	case s.frozen:
		return errors.New("the firmware has frozen the drive's security state: " +
			"switch it off in the firmware's setup, " +
			"or pull the drive and plug it in again while the machine is on")
	case s.enabled:
		return errors.New("somebody has set a password on the drive")
	}
	estimate := s.normally
	if s.enhanced {
		estimate = s.thoroughly
	}
	if estimate == 0 {
		estimate = time.Hour
	}
	if err := d.scsi.send(ataCDB(ataSetPassword, ataPIOOut), passwordBlock(false), toDrive,
		30*time.Second); err != nil {
		return errors.Join(fmt.Errorf("set a password: %w", err), d.dropPassword())
	}
	err := d.scsi.send(ataCDB(ataErasePrepare, ataNonData), nil, noData, 30*time.Second)
	if err == nil {
		err = d.during("ATA secure erase", estimate, func() error {
			return d.scsi.send(ataCDB(ataEraseUnit, ataPIOOut), passwordBlock(s.enhanced), toDrive,
				2*estimate+time.Hour)
		})
	}
	if err != nil {
		return errors.Join(err, d.dropPassword())
	}
	// The drive's present state decides: a successful erase removes the password.
	clear(id)
	if err := d.scsi.send(ataCDB(ataIdentify, ataPIOIn), id, fromDrive, 30*time.Second); err != nil {
		return fmt.Errorf("look at the drive again: %w", err)
	}
	if parseSecurity(id).enabled {
		return errors.Join(errors.New("the drive still has the password that was set for the erase"),
			d.dropPassword())
	}
	return ctx.Err()
}

// dropPassword removes the password again, so that a failed erase does not lock the drive for ever.
func (d *disk) dropPassword() error {
	id := make([]byte, 512)
	if err := d.scsi.send(ataCDB(ataIdentify, ataPIOIn), id, fromDrive, 30*time.Second); err == nil &&
		!parseSecurity(id).enabled {
		return nil
	}
	if err := d.scsi.send(ataCDB(ataDisablePassword, ataPIOOut), passwordBlock(false), toDrive,
		30*time.Second); err != nil {
		return fmt.Errorf("the password %q may be left on the drive: %w", password, err)
	}
	return nil
}
