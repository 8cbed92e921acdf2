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

// A scsiDrive takes SCSI commands. The error is a senseError when the drive refuses.
type scsiDrive interface {
	send(cdb []byte, data []byte, to direction, timeout time.Duration) error
}

// direction is the direction of a command's data, in the words of SG_IO (scsi/sg.h).
type direction int32

const (
	noData    direction = -1
	toDrive   direction = -2
	fromDrive direction = -3
)

const sgIO = 0x2285

// An sgHeader is struct sg_io_hdr of scsi/sg.h.
type sgHeader struct {
	interfaceID  int32
	direction    int32
	cmdLen       uint8
	senseMax     uint8
	iovecs       uint16
	dataLen      uint32
	data         unsafe.Pointer
	cmd          unsafe.Pointer
	sense        unsafe.Pointer
	timeoutMS    uint32
	flags        uint32
	packID       int32
	user         unsafe.Pointer
	status       uint8
	masked       uint8
	msg          uint8
	senseLen     uint8
	hostStatus   uint16
	driverStatus uint16
	residual     int32
	duration     uint32
	info         uint32
}

type scsiFile struct{ f *os.File }

func (s scsiFile) send(cdb []byte, data []byte, to direction, timeout time.Duration) error {
	sense := make([]byte, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&cdb[0])
	pin.Pin(&sense[0])
	h := &sgHeader{
		interfaceID: 'S', direction: int32(to), cmdLen: uint8(len(cdb)), senseMax: uint8(len(sense)),
		cmd:       unsafe.Pointer(&cdb[0]),
		sense:     unsafe.Pointer(&sense[0]),
		timeoutMS: uint32(timeout.Milliseconds()),
	}
	if len(data) > 0 {
		pin.Pin(&data[0])
		h.data, h.dataLen = unsafe.Pointer(&data[0]), uint32(len(data))
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, s.f.Fd(), sgIO, uintptr(unsafe.Pointer(h))); errno != 0 {
		return errno
	}
	switch {
	case h.senseLen > 0 && h.status != 0:
		return senseError{parseSense(sense[:h.senseLen])}
	case h.status != 0 || h.hostStatus != 0:
		return fmt.Errorf("the drive answered status %#x, the controller %#x", h.status, h.hostStatus)
	}
	return nil
}

// A sense says why a command failed (SPC-4 section 4.5).
type sense struct {
	key, asc, ascq uint8
	done           float64 // progress, if the drive reports it
}

const (
	senseNotReady = 2
	senseIllegal  = 5
)

// parseSense reads fixed and descriptor format (SPC-4 sections 4.5.2 and 4.5.3).
func parseSense(b []byte) sense {
	at := func(i int) uint8 {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	progress := func(i int) float64 { // sense key specific: SKSV, then a fraction of 65536
		if at(i)&0x80 == 0 {
			return 0
		}
		return float64(uint16(at(i+1))<<8|uint16(at(i+2))) / 65536
	}
	switch at(0) & 0x7f {
	case 0x70, 0x71:
		return sense{at(2) & 0xf, at(12), at(13), progress(15)}
	case 0x72, 0x73:
		s := sense{key: at(1) & 0xf, asc: at(2), ascq: at(3)}
		for i := 8; i+1 < len(b); i += 2 + int(at(i+1)) {
			if at(i) == 2 {
				s.done = progress(i + 4)
			}
		}
		return s
	}
	return sense{}
}

type senseError struct{ sense }

func (s senseError) Error() string {
	return fmt.Sprintf("the drive answered sense key %#x, %02x/%02x", s.key, s.asc, s.ascq)
}

// Service actions of SANITIZE (SBC-4 section 5.30).
const (
	scsiOverwrite = 1
	scsiBlocks    = 2
	scsiCrypto    = 3
	scsiExit      = 0x1f // leave the failure mode
)

// sanitizeCDB makes a SANITIZE, 48h, that returns at once (IMMED) and lets the drive leave a failed one
// (AUSE).
func sanitizeCDB(action uint8, parameters int) []byte {
	cdb := make([]byte, 10)
	cdb[0], cdb[1] = 0x48, 0x80|0x20|action
	if action == scsiExit {
		cdb[1] = action
	}
	binary.BigEndian.PutUint16(cdb[7:], uint16(parameters))
	return cdb
}

// overwriteParameters ask for one pass with zeros (SBC-4 table 79): count, and a pattern of four bytes.
func overwriteParameters() []byte { return []byte{1, 0, 0, 4, 0, 0, 0, 0} }

// requestSense asks for the drive's progress; descriptor format off.
func requestSense() []byte { return []byte{0x03, 0, 0, 0, 252, 0} }

func (d *disk) scsiSanitize(ctx context.Context) error {
	var why error
	for _, action := range []uint8{scsiBlocks, scsiCrypto, scsiOverwrite} {
		var parameters []byte
		to := noData
		if action == scsiOverwrite {
			parameters, to = overwriteParameters(), toDrive
		}
		err := d.scsi.send(sanitizeCDB(action, len(parameters)), parameters, to, time.Minute)
		if s, ok := err.(senseError); ok && s.key == senseIllegal || err == unix.ENOTTY ||
			err == unix.EINVAL || err == unix.EPERM {
			why = err
			continue
		}
		if err != nil {
			return err
		}
		return d.awaitSanitize(ctx)
	}
	return passed("the drive does not sanitize: %v", why)
}

// awaitSanitize asks until the drive is ready again. Until then it answers NOT READY, SANITIZE IN PROGRESS
// (04h/1Bh) with its progress.
func (d *disk) awaitSanitize(ctx context.Context) error {
	began := time.Now()
	for {
		if err := sleep.For(ctx, d.poll); err != nil {
			return err
		}
		data := make([]byte, 252)
		if err := d.scsi.send(requestSense(), data, fromDrive, time.Minute); err != nil {
			return fmt.Errorf("ask how far it is: %w", err)
		}
		switch s := parseSense(data); {
		case s.key == senseNotReady && s.asc == 0x04 && s.ascq == 0x1b:
			d.tell("SCSI sanitize", s.done, began)
		case s.asc == 0x31 && s.ascq == 0x03: // SANITIZE COMMAND FAILED
			_ = d.scsi.send(sanitizeCDB(scsiExit, 0), nil, noData, time.Minute)
			return errors.New("the drive says that it failed")
		case s.key == 0:
			return nil
		default:
			return senseError{s}
		}
	}
}
