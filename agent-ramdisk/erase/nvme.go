package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/internal/sleep"
)

// An nvmeCommand is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type nvmeCommand struct {
	opcode      uint8
	flags       uint8
	_           uint16
	nsid        uint32
	cdw2, cdw3  uint32
	metadata    uint64
	addr        uint64
	metadataLen uint32
	dataLen     uint32
	cdw10       uint32
	cdw11       uint32
	cdw12       uint32
	cdw13       uint32
	cdw14       uint32
	cdw15       uint32
	timeoutMS   uint32
	result      uint32
}

const (
	nvmeIoctlID    = 0x4e40     // _IO('N', 0x40): the namespace of this file
	nvmeIoctlAdmin = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_passthru_cmd)
)

// Admin commands, NVM Express Base 1.4 figure 139.
const (
	nvmeGetLogPage = 0x02
	nvmeIdentify   = 0x06
	nvmeFormatNVM  = 0x80
	nvmeSanitizeOp = 0x84
)

// Sanitize actions, Base 1.4 section 5.24, CDW10 bits 2:0.
const (
	sanitizeExit   = 1 // leave the failure mode
	sanitizeBlocks = 2
	sanitizeCrypto = 4
)

// Secure erase settings of Format NVM, Base 1.4 section 5.23, CDW10 bits 11:9. With 0, a format erases
// nothing.
const (
	eraseUser   = 1
	eraseCrypto = 2
)

const nvmeAll = 0xffffffff

func identify(cns, nsid uint32) nvmeCommand {
	return nvmeCommand{opcode: nvmeIdentify, nsid: nsid, cdw10: cns, timeoutMS: 30_000}
}

// sanitizeLog reads the Sanitize Status log page, 81h (Base 1.4 section 5.14.1.9.2): 512 bytes, counted in
// dwords from 0.
func sanitizeLog() nvmeCommand {
	return nvmeCommand{opcode: nvmeGetLogPage, nsid: nvmeAll, cdw10: 0x81 | (512/4-1)<<16, timeoutMS: 30_000}
}

// sanitize starts a sanitize. Bit 3 (AUSE) lets the drive leave a failed one without a successful one.
func sanitize(action uint32) nvmeCommand {
	return nvmeCommand{opcode: nvmeSanitizeOp, cdw10: action | 1<<3, timeoutMS: 60_000}
}

// format keeps the namespace's sector format and protection, from its FLBAS and DPS.
func format(nsid uint32, flbas, dps uint8, ses uint32) nvmeCommand {
	c := uint32(flbas&0xf) | // LBAF
		uint32(flbas>>4&1)<<4 | // MSET: metadata as part of the data
		uint32(dps&7)<<5 | uint32(dps>>3&1)<<8 | // PI, PIL
		ses<<9 |
		uint32(flbas>>5&3)<<12 // LBAFU
	return nvmeCommand{
		opcode: nvmeFormatNVM, nsid: nsid, cdw10: c, timeoutMS: uint32((4 * time.Hour).Milliseconds()),
	}
}

// nvmeCaps are the erase capabilities in Identify Controller (Base 1.4 figure 247).
type nvmeCaps struct {
	crypto, blocks bool // SANICAP, bytes 331:328
	format         bool // OACS bit 1, bytes 257:256
	formatsAll     bool // FNA bits 0 and 1, byte 524: a format, or its erase, covers all namespaces
	formatCrypto   bool // FNA bit 2
}

func parseCaps(id []byte) nvmeCaps {
	sani, oacs, fna := binary.LittleEndian.Uint32(id[328:]), binary.LittleEndian.Uint16(id[256:]), id[524]
	return nvmeCaps{
		crypto: sani&1 != 0, blocks: sani&2 != 0, format: oacs&2 != 0, formatsAll: fna&3 != 0,
		formatCrypto: fna&4 != 0,
	}
}

// Sanitize status, SSTAT bits 2:0.
const (
	sanitizeDone     = 1
	sanitizeRunning  = 2
	sanitizeFailed   = 3
	sanitizeDoneKept = 4 // done, and not deallocated
)

func parseSanitizeLog(log []byte) (status uint16, done float64) {
	return binary.LittleEndian.Uint16(log[2:]) & 7, float64(binary.LittleEndian.Uint16(log)) / 65536
}

// An nvmeStatus is a drive's status of a command: SCT and SC (Base 1.4 figures 127 to 130).
type nvmeStatus uint16

func (s nvmeStatus) Error() string {
	return fmt.Sprintf("the drive answered status type %d, code %#x", s>>8&7, uint16(s&0xff))
}

// unknown says whether the drive does not know the command or its parameters.
func (s nvmeStatus) unknown() bool {
	switch s & 0x7ff {
	case 0x001, 0x002, 0x10a: // invalid opcode, invalid field, invalid format
		return true
	}
	return false
}

// An nvmeDrive takes admin commands.
type nvmeDrive interface {
	// admin returns an nvmeStatus as an error when the drive refuses.
	admin(c nvmeCommand, data []byte) error
	namespace() (uint32, error)
}

type nvmeFile struct{ f *os.File }

func (n nvmeFile) admin(c nvmeCommand, data []byte) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(data) > 0 {
		pin.Pin(&data[0])
		c.addr, c.dataLen = uint64(uintptr(unsafe.Pointer(&data[0]))), uint32(len(data))
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, n.f.Fd(), nvmeIoctlAdmin, uintptr(unsafe.Pointer(&c)))
	switch {
	case errno != 0:
		return errno
	case status != 0:
		return nvmeStatus(status)
	}
	return nil
}

func (n nvmeFile) namespace() (uint32, error) {
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, n.f.Fd(), nvmeIoctlID, 0)
	if errno != 0 {
		return 0, fmt.Errorf("namespace: %w", errno)
	}
	return uint32(id), nil
}

// identify reads the drive's capabilities and its number of namespaces.
func (d *disk) identify() (caps nvmeCaps, namespaces int, err error) {
	page := make([]byte, 4096)
	if err := d.nvme.admin(identify(1, 0), page); err != nil {
		return caps, 0, passed("the drive does not say what it can: %v", err)
	}
	caps = parseCaps(page)
	clear(page)
	if err := d.nvme.admin(identify(2, 0), page); err != nil {
		return caps, 1, nil // before NVMe 1.1 there was no list, and one namespace
	}
	for namespaces < 1024 && binary.LittleEndian.Uint32(page[4*namespaces:]) != 0 {
		namespaces++
	}
	return caps, namespaces, nil
}

func (d *disk) nvmeSanitize(ctx context.Context) error {
	caps, namespaces, err := d.identify()
	if err != nil {
		return err
	}
	action := uint32(0)
	switch {
	case namespaces > 1:
		return passed("the drive has %d namespaces, and it would erase all of them", namespaces)
	case caps.blocks:
		action = sanitizeBlocks
	case caps.crypto:
		action = sanitizeCrypto
	default:
		return passed("the drive can neither erase its blocks nor its key")
	}
	if err := d.nvme.admin(sanitize(action), nil); err != nil {
		if s, ok := err.(nvmeStatus); ok && s.unknown() {
			return passed("%v", err)
		}
		return err
	}
	log, began := make([]byte, 512), time.Now()
	for {
		if err := sleep.For(ctx, d.poll); err != nil {
			return err
		}
		clear(log)
		if err := d.nvme.admin(sanitizeLog(), log); err != nil {
			return fmt.Errorf("ask how far it is: %w", err)
		}
		switch status, done := parseSanitizeLog(log); status {
		case sanitizeDone, sanitizeDoneKept:
			return nil
		case sanitizeRunning:
			d.tell("NVMe sanitize", done, began)
		case sanitizeFailed:
			// Leave the failure mode, in which the drive refuses reads and writes.
			_ = d.nvme.admin(sanitize(sanitizeExit), nil)
			return errors.New("the drive says that it failed")
		default:
			return fmt.Errorf("the drive took the command and says that none was ever begun (status %d)",
				status)
		}
	}
}

func (d *disk) nvmeFormat(ctx context.Context) error {
	caps, namespaces, err := d.identify()
	if err != nil {
		return err
	}
	switch {
	case !caps.format:
		return passed("the drive does not format")
	case caps.formatsAll && namespaces > 1:
		return passed("the drive has %d namespaces, and it would erase all of them", namespaces)
	}
	nsid, err := d.nvme.namespace()
	if err != nil {
		return err
	}
	page := make([]byte, 4096)
	if err := d.nvme.admin(identify(0, nsid), page); err != nil {
		return fmt.Errorf("identify namespace %d: %w", nsid, err)
	}
	flbas, dps := page[26], page[29]
	settings := []uint32{eraseUser}
	if caps.formatCrypto {
		settings = []uint32{eraseCrypto, eraseUser}
	}
	for _, ses := range settings {
		err = d.during("NVMe format with secure erase", 10*time.Minute, func() error {
			return d.nvme.admin(format(nsid, flbas, dps, ses), nil)
		})
		if s, ok := err.(nvmeStatus); !ok || !s.unknown() {
			break
		}
	}
	if s, ok := err.(nvmeStatus); ok && s.unknown() {
		return passed("%v", err)
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// tell reports the drive's own progress. It adds the seconds, so that a drive that reports nothing for long
// does not look dead.
func (d *disk) tell(method string, done float64, began time.Time) {
	d.progress(method, min(uint64(done*float64(d.Size))+uint64(time.Since(began).Seconds()), uint64(d.Size)),
		uint64(d.Size))
}

// during runs a command that reports no progress, and estimates it by the clock.
func (d *disk) during(method string, estimate time.Duration, command func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- command() }()
	began, tick := time.Now(), time.NewTicker(10*time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			t := float64(time.Since(began))
			d.tell(method, t/(t+float64(estimate)/4), began) // never complete
		}
	}
}
