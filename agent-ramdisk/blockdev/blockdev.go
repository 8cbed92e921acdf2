package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Device is a disk, or a file in place of one, opened for writing.
type Device struct {
	Name   string // "vda"
	Size   int64
	Sector int    // logical
	Block  bool   // it is a block device
	Sys    string // its directory in sysfs

	File   *os.File // buffered
	Direct Medium   // O_DIRECT; the same as File if that is not possible
}

// A Medium reads and writes bytes past the page cache. Tests have one that fails.
type Medium interface {
	io.ReaderAt
	io.WriterAt
}

// Align is the alignment of offsets, lengths and memory for O_DIRECT. No disk needs more than a page.
const Align = 4096

// Open opens a whole disk exclusively: a disk that is mounted or held by another driver is busy.
func Open(path string) (*Device, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d := &Device{Name: filepath.Base(path), Block: st.Mode()&os.ModeDevice != 0}
	d.Sys = filepath.Join("/sys/class/block", d.Name)
	flags := os.O_RDWR
	if d.Block {
		flags |= unix.O_EXCL // on a block device: fail if another program holds it
	}
	if d.File, err = os.OpenFile(path, flags, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s is in use (mounted, or part of a RAID or LVM that is active): %w",
				path, err)
		}
		return nil, err
	}
	d.Direct = d.File
	if f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err == nil {
		d.Direct = f
	}
	if err := d.measure(); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func (d *Device) measure() (err error) {
	d.Size, d.Sector, err = Geometry(d.File)
	if err != nil || !d.Block {
		return err
	}
	readOnly, err := unix.IoctlGetInt(int(d.File.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("read-only flag: %w", err)
	}
	if readOnly != 0 {
		return errors.New("the disk is read-only")
	}
	return nil
}

// Geometry is the size of a disk, or of a file in place of one, and its logical sector size.
func Geometry(f *os.File) (size int64, sector int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if st.Mode()&os.ModeDevice == 0 {
		return st.Size(), 512, nil
	}
	var bytes uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64,
		uintptr(unsafe.Pointer(&bytes))); errno != 0 {
		return 0, 0, fmt.Errorf("size: %w", errno)
	}
	if sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
		return 0, 0, fmt.Errorf("sector size: %w", err)
	}
	return int64(bytes), sector, nil
}

// Ioctl calls ioctl(2) on the device.
func (d *Device) Ioctl(req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.File.Fd(), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// Close closes the device. It does not flush.
func (d *Device) Close() error {
	if f, ok := d.Direct.(*os.File); ok && f != d.File {
		_ = f.Close()
	}
	return d.File.Close()
}

// ReadAt reads through the page cache.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.File.ReadAt(p, off) }

// WriteAt writes through the page cache. Flush makes it durable.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.File.WriteAt(p, off) }

// Buffer allocates memory for direct I/O.
func Buffer(n int) []byte {
	n = (n + Align - 1) / Align * Align
	raw := make([]byte, n+Align)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (Align - 1)
	return raw[skip : int(skip)+n : int(skip)+n]
}

// WriteDirect writes p, a Buffer, past the page cache. An unaligned end goes through the cache.
func (d *Device) WriteDirect(p []byte, off int64) error {
	whole := len(p) / Align * Align
	if off%Align != 0 {
		whole = 0
	}
	if whole > 0 {
		if _, err := d.Direct.WriteAt(p[:whole], off); err != nil {
			return err
		}
	}
	if whole < len(p) {
		if _, err := d.File.WriteAt(p[whole:], off+int64(whole)); err != nil {
			return err
		}
	}
	return nil
}

// ReadMedium reads len(p) bytes from the medium into p, a Buffer. For an unaligned end, the caller must call
// Flush before, which empties the cache.
func (d *Device) ReadMedium(p []byte, off int64) error {
	whole := len(p) / Align * Align
	if off%Align != 0 {
		whole = 0
	}
	if whole > 0 {
		if _, err := io.ReadFull(io.NewSectionReader(d.Direct, off, int64(whole)), p[:whole]); err != nil {
			return err
		}
	}
	if whole < len(p) {
		if _, err := d.File.ReadAt(p[whole:], off+int64(whole)); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes everything to the medium and empties the page cache of the disk, so that later reads come from
// the medium.
func (d *Device) Flush() error {
	if err := d.File.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", d.Name, err)
	}
	if d.Block {
		if err := d.Ioctl(unix.BLKFLSBUF, nil); err != nil {
			return fmt.Errorf("flush %s: empty its cache: %w", d.Name, err)
		}
	}
	if err := unix.Fadvise(int(d.File.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("flush %s: empty its cache: %w", d.Name, err)
	}
	return nil
}

// Reread makes the kernel read the partition table again.
func (d *Device) Reread() error {
	if !d.Scannable() {
		return nil
	}
	var err error
	for range 50 {
		if err = d.Ioctl(unix.BLKRRPART, nil); !errors.Is(err, unix.EBUSY) {
			break
		}
		// A program that noticed the change still reads the disk.
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("%s: make the kernel read the partition table again: %w", d.Name, err)
	}
	return nil
}

// Scannable says whether the kernel looks for partitions here. It does not on plain files and loop devices.
func (d *Device) Scannable() bool {
	return d.Block && !strings.HasPrefix(d.Name, "loop")
}

// ErrNoDiscard says that the disk cannot discard.
var ErrNoDiscard = errors.New("the disk cannot discard")

// CanDiscard says whether the disk claims that it can discard.
func (d *Device) CanDiscard() bool {
	most, err := os.ReadFile(filepath.Join(d.Sys, "queue/discard_max_bytes"))
	return d.Block && err == nil && strings.TrimSpace(string(most)) != "0"
}

// Discard tells the disk that nothing from off to its end is needed. It does so in pieces, since one call for
// a large disk can exceed time-outs. done, which may be nil, gets the progress. The disk chooses what
// discarded ranges read.
func (d *Device) Discard(ctx context.Context, off int64, done func(int64)) error {
	const piece = 64 << 30
	for ; off < d.Size && ctx.Err() == nil; off += piece {
		r := [2]uint64{uint64(off), uint64(min(piece, d.Size-off))}
		switch err := d.Ioctl(unix.BLKDISCARD, unsafe.Pointer(&r)); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
			return ErrNoDiscard
		case err != nil:
			return fmt.Errorf("discard %s at %d: %w", d.Name, off, err)
		}
		if done != nil {
			done(int64(r[0] + r[1]))
		}
	}
	return ctx.Err()
}
