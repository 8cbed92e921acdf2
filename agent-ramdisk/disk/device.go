package disk

import (
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

// A Device is a disk opened for writing. Reads and writes of Direct go past the page cache where the
// disk allows it.
type Device struct {
	Name   string // "vda"
	Size   int64
	Sector int // logical

	file   *os.File // buffered
	direct medium   // O_DIRECT; the same as file where there is no such thing
	block  bool
	sys    string
}

// A medium is where image bytes go to and come back from. Tests have one that breaks.
type medium interface {
	io.ReaderAt
	io.WriterAt
}

// align is what O_DIRECT needs of offsets, lengths and memory; no disk asks for more than a page.
const align = 4096

// OpenDevice opens a whole disk, alone: a disk that is mounted or held by another driver is busy.
func OpenDevice(path string) (*Device, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d := &Device{Name: filepath.Base(path), block: st.Mode()&os.ModeDevice != 0}
	d.sys = filepath.Join("/sys/class/block", d.Name)
	flags := os.O_RDWR
	if d.block {
		flags |= unix.O_EXCL // on a block device: fail if somebody holds it
	}
	if d.file, err = os.OpenFile(path, flags, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s is in use (mounted, or part of a RAID or LVM that is active): %w", path, err)
		}
		return nil, err
	}
	d.direct = d.file
	if f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err == nil {
		d.direct = f
	}
	if err := d.measure(); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func (d *Device) measure() (err error) {
	d.Size, d.Sector, err = Geometry(d.file)
	if err != nil || !d.block {
		return err
	}
	readOnly, err := unix.IoctlGetInt(int(d.file.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("read-only flag: %w", err)
	}
	if readOnly != 0 {
		return errors.New("the disk is read-only")
	}
	return nil
}

// Geometry is the size of a disk, or of a file that stands for one, and its logical sector size.
func Geometry(f *os.File) (size int64, sector int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if st.Mode()&os.ModeDevice == 0 {
		return st.Size(), 512, nil
	}
	var bytes uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&bytes))); errno != 0 {
		return 0, 0, fmt.Errorf("size: %w", errno)
	}
	if sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
		return 0, 0, fmt.Errorf("sector size: %w", err)
	}
	return int64(bytes), sector, nil
}

func (d *Device) ioctl(req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// Close closes the device; what was written is not flushed by it.
func (d *Device) Close() error {
	if f, ok := d.direct.(*os.File); ok && f != d.file {
		_ = f.Close()
	}
	return d.file.Close()
}

// ReadAt reads through the page cache.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// WriteAt writes through the page cache; Flush makes it last.
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.file.WriteAt(p, off) }

// Buffer makes memory that direct I/O can use.
func Buffer(n int) []byte {
	n = (n + align - 1) / align * align
	raw := make([]byte, n+align)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (align - 1)
	return raw[skip : int(skip)+n : int(skip)+n]
}

// WriteDirect writes p, which Buffer made, past the page cache. An odd end goes through the cache.
func (d *Device) WriteDirect(p []byte, off int64) error {
	whole := len(p) / align * align
	if off%align != 0 {
		whole = 0
	}
	if whole > 0 {
		if _, err := d.direct.WriteAt(p[:whole], off); err != nil {
			return err
		}
	}
	if whole < len(p) {
		if _, err := d.file.WriteAt(p[whole:], off+int64(whole)); err != nil {
			return err
		}
	}
	return nil
}

// ReadMedium reads len(p) bytes from the medium. p must be made by Buffer; for
// odd ends the caller has called Flush before, which empties the cache.
func (d *Device) ReadMedium(p []byte, off int64) error {
	whole := len(p) / align * align
	if off%align != 0 {
		whole = 0
	}
	if whole > 0 {
		if _, err := io.ReadFull(io.NewSectionReader(d.direct, off, int64(whole)), p[:whole]); err != nil {
			return err
		}
	}
	if whole < len(p) {
		if _, err := d.file.ReadAt(p[whole:], off+int64(whole)); err != nil {
			return err
		}
	}
	return nil
}

// Flush brings what was written to the medium and empties the page cache of the disk, so that
// what is read next comes from the medium.
func (d *Device) Flush() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", d.Name, err)
	}
	if d.block {
		if err := d.ioctl(unix.BLKFLSBUF, nil); err != nil {
			return fmt.Errorf("flush %s: empty its cache: %w", d.Name, err)
		}
	}
	if err := unix.Fadvise(int(d.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("flush %s: empty its cache: %w", d.Name, err)
	}
	return nil
}

// reread makes the kernel read the partition table again.
func (d *Device) reread() error {
	if !d.scannable() {
		return nil
	}
	var err error
	for range 50 {
		if err = d.ioctl(unix.BLKRRPART, nil); !errors.Is(err, unix.EBUSY) {
			break
		}
		// Something that saw the disk change is still looking at it.
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("%s: make the kernel read the partition table again: %w", d.Name, err)
	}
	return nil
}

// scannable says whether the kernel looks for partitions here: it does not on plain files and loop devices.
func (d *Device) scannable() bool {
	return d.block && !strings.HasPrefix(d.Name, "loop")
}
