package erase

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fakeSCSI is a SAS drive, or with security an ATA drive behind SAT.
type fakeSCSI struct {
	d        *disk
	security []uint16 // words 82, 89, 90, 128 of IDENTIFY; nil: no ATA drive
	sanitize uint8    // the action that it supports
	refuses  uint8    // the ATA command that it refuses
	log      []string
	polls    int
}

func (s *fakeSCSI) send(cdb []byte, data []byte, to direction, _ time.Duration) error {
	illegal := senseError{sense{key: senseIllegal, asc: 0x20}}
	switch cdb[0] {
	case 0x85:
		if s.security == nil {
			return illegal
		}
		command := cdb[14]
		if command != ataIdentify {
			s.log = append(s.log, fmt.Sprintf("%02x", command))
		}
		if command == s.refuses {
			return senseError{sense{key: 0xb}}
		}
		switch command {
		case ataIdentify:
			for i, word := range []int{82, 89, 90, 128} {
				binary.LittleEndian.PutUint16(data[2*word:], s.security[i])
			}
		case ataSetPassword:
			s.security[3] |= 2
		case ataEraseUnit:
			s.security[3] &^= 2
			fill(s.d, 0, false)
		case ataDisablePassword:
			s.security[3] &^= 2
		}
		return nil
	case 0x48:
		if action := cdb[1] & 0x1f; action != s.sanitize {
			return illegal
		}
		s.log = append(s.log, fmt.Sprintf("sanitize %d %d", s.sanitize, to))
		fill(s.d, 0xaa, s.sanitize == scsiCrypto)
		return nil
	case 0x03:
		if s.polls++; s.polls < 3 {
			copy(data, []byte{0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b, 0, 0x80, 0x80, 0})
			return nil
		}
		copy(data, []byte{0x70, 0, 0, 0, 0, 0, 0, 10})
		return nil
	}
	return unix.ENOTTY
}

func TestSCSILadder(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      fakeSCSI
		method string // or a part of the error
		log    string
		passed string
	}{
		{"ATA", fakeSCSI{security: []uint16{2, 1, 1, 1}}, "ATA secure erase", "f1, f3, f4", ""},
		{
			"ATA without security",
			fakeSCSI{security: []uint16{0, 0, 0, 0}},
			"overwrite with zeros", "",
			"ATA secure erase: the drive has no security feature set; " +
				"SCSI sanitize: the drive does not sanitize",
		},
		{
			"frozen",
			fakeSCSI{security: []uint16{2, 1, 1, 1 | 8}},
			"the firmware has frozen the drive's security state", "", "",
		},
		{
			"locked",
			fakeSCSI{security: []uint16{2, 1, 1, 1 | 2 | 4}},
			"locked with somebody's password", "", "",
		},
		{
			"the erase is refused, the password goes",
			fakeSCSI{security: []uint16{2, 1, 1, 1}, refuses: ataEraseUnit},
			"ATA secure erase: the drive answered sense key 0xb", "f1, f3, f4, f6", "",
		},
		{
			"the password is refused",
			fakeSCSI{security: []uint16{2, 1, 1, 1}, refuses: ataSetPassword},
			"set a password: the drive answered", "f1", "",
		},
		{
			"SAS, blocks",
			fakeSCSI{sanitize: scsiBlocks},
			"SCSI sanitize", "sanitize 2 -1",
			"ATA secure erase: it is no ATA drive",
		},
		{"SAS, crypto", fakeSCSI{sanitize: scsiCrypto}, "SCSI sanitize", "sanitize 3 -1", ""},
		{"SAS, overwrite", fakeSCSI{sanitize: scsiOverwrite}, "SCSI sanitize", "sanitize 1 -2", ""},
		{"neither", fakeSCSI{}, "overwrite with zeros", "", "SCSI sanitize: the drive does not sanitize"},
	} {
		d := newDisk(t)
		c.s.d, d.scsi = d, &c.s
		got, over := outcome(t, d)
		if !strings.Contains(got, c.method) || strings.Join(c.s.log, ", ") != c.log ||
			!strings.Contains(over, c.passed) {
			t.Errorf("%s: %q, after %q, passed over %q; want %q, %q, %q", c.name, got, c.s.log, over,
				c.method, c.log, c.passed)
		}
		if c.s.security != nil && c.name != "locked" && c.s.security[3]&2 != 0 {
			t.Errorf("%s: the drive is left with a password", c.name)
		}
	}
}
