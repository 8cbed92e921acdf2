package erase

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// A fakeNVMe answers admin commands by its fields.
type fakeNVMe struct {
	d          *disk
	caps       nvmeCaps
	namespaces int
	fails      bool // the sanitize
	lies       bool // it claims to have erased, and did not
	random     bool // it reads random bytes afterwards
	formats    map[uint32]error
	log        []string
	polls      int
}

func (n *fakeNVMe) namespace() (uint32, error) { return 1, nil }

func (n *fakeNVMe) admin(c nvmeCommand, data []byte) error {
	switch c.opcode {
	case nvmeIdentify:
		switch c.cdw10 {
		case 1:
			var sani uint32
			if n.caps.crypto {
				sani |= 1
			}
			if n.caps.blocks {
				sani |= 2
			}
			binary.LittleEndian.PutUint32(data[328:], sani)
			if n.caps.format {
				data[256] = 2
			}
			if n.caps.formatsAll {
				data[524] |= 1
			}
			if n.caps.formatCrypto {
				data[524] |= 4
			}
		case 2:
			for i := range n.namespaces {
				binary.LittleEndian.PutUint32(data[4*i:], uint32(i+1))
			}
		}
	case nvmeSanitizeOp:
		n.log = append(n.log, fmt.Sprintf("sanitize %d", c.cdw10&7))
		if !n.fails && !n.lies {
			fill(n.d, 0xff, n.random)
		}
	case nvmeGetLogPage:
		status := uint16(sanitizeRunning)
		if n.polls++; n.polls >= 3 {
			status = sanitizeDone
			if n.fails {
				status = sanitizeFailed
			}
		}
		binary.LittleEndian.PutUint16(data, 0x8000)
		binary.LittleEndian.PutUint16(data[2:], status)
	case nvmeFormatNVM:
		ses := c.cdw10 >> 9 & 7
		n.log = append(n.log, fmt.Sprintf("format %d", ses))
		if err := n.formats[ses]; err != nil {
			return err
		}
		if !n.lies {
			fill(n.d, 0, n.random)
		}
	default:
		return nvmeStatus(0x4001)
	}
	return nil
}

func TestNVMeLadder(t *testing.T) {
	invalid := nvmeStatus(0x4002)
	for _, c := range []struct {
		name   string
		n      fakeNVMe
		method string // or a part of the error
		log    string
		passed string
	}{
		{
			"sanitize its blocks",
			fakeNVMe{caps: nvmeCaps{blocks: true, crypto: true, format: true}, namespaces: 1},
			"NVMe sanitize", "sanitize 2", "",
		},
		{
			"sanitize its key",
			fakeNVMe{caps: nvmeCaps{crypto: true}, namespaces: 1, random: true},
			"NVMe sanitize", "sanitize 4", "",
		},
		{
			"no sanitize",
			fakeNVMe{
				caps: nvmeCaps{format: true, formatCrypto: true}, namespaces: 1,
				random: true,
			},
			"NVMe format with secure erase", "format 2",
			"NVMe sanitize: the drive can neither",
		},
		{
			"no crypto format",
			fakeNVMe{caps: nvmeCaps{format: true}, namespaces: 1},
			"NVMe format with secure erase", "format 1", "",
		},
		{
			"crypto format refused",
			fakeNVMe{
				caps: nvmeCaps{format: true, formatCrypto: true}, namespaces: 1,
				formats: map[uint32]error{2: invalid},
			},
			"NVMe format with secure erase", "format 2, format 1",
			"",
		},
		{
			"no secure erase at all",
			fakeNVMe{caps: nvmeCaps{format: true}, namespaces: 1, formats: map[uint32]error{1: invalid}},
			"overwrite with zeros", "format 1", "status type 0, code 0x2",
		},
		{
			"another namespace on the drive",
			fakeNVMe{caps: nvmeCaps{blocks: true, format: true, formatsAll: true}, namespaces: 2},
			"overwrite with zeros", "", "has 2 namespaces",
		},
		{
			"another namespace, which a format spares",
			fakeNVMe{caps: nvmeCaps{blocks: true, format: true}, namespaces: 2},
			"NVMe format with secure erase", "format 1", "has 2 namespaces",
		},
		{"nothing", fakeNVMe{namespaces: 1}, "overwrite with zeros", "", "does not format"},
		{
			"a sanitize that erases nothing",
			fakeNVMe{caps: nvmeCaps{blocks: true}, namespaces: 1, lies: true},
			"overwrite with zeros", "sanitize 2", "what was there before",
		},
		{
			"a sanitize that fails",
			fakeNVMe{caps: nvmeCaps{blocks: true}, namespaces: 1, fails: true},
			"NVMe sanitize: the drive says that it failed", "sanitize 2, sanitize 1", "",
		},
		{
			"a format that fails",
			fakeNVMe{
				caps:       nvmeCaps{format: true},
				namespaces: 1,
				formats:    map[uint32]error{1: nvmeStatus(0x006)},
			},
			"NVMe format with secure erase: the drive answered status type 0, code 0x6", "format 1", "",
		},
	} {
		d := newDisk(t)
		c.n.d, d.nvme = d, &c.n
		got, over := outcome(t, d)
		if !strings.Contains(got, c.method) || strings.Join(c.n.log, ", ") != c.log ||
			!strings.Contains(over, c.passed) {
			t.Errorf("%s: %q, after %q, passed over %q; want %q, %q, %q", c.name, got, c.n.log, over,
				c.method, c.log, c.passed)
		}
	}
}
