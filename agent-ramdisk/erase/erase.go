package erase

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/inventory"
)

// Progress tells how far a rung is, in bytes of the disk. What the disk does by itself is an estimate.
type Progress func(rung string, done, total uint64)

// A disk is what the rungs work on. Tests give it a drive that is not there.
type disk struct {
	name   string
	size   int64
	file   *os.File // buffered
	direct *os.File // past the page cache; the same as file where there is no such thing
	block  bool

	nvme     nvmeDrive // nil when it is none
	scsi     scsiDrive // nil when it is none
	poll     time.Duration
	progress Progress
}

// errPassed says that the disk cannot do what a rung wants, so that the next one is tried.
var errPassed = errors.New("passed over")

// passed makes an error that is errPassed and says why.
func passed(format string, args ...any) error { return passedOver{fmt.Sprintf(format, args...)} }

type passedOver struct{ why string }

func (p passedOver) Error() string        { return p.why }
func (p passedOver) Is(target error) bool { return target == errPassed }

// A rung is one way to erase.
type rung struct {
	name  string
	zeros bool // afterwards the disk reads zeros; otherwise whatever is not the old data
	run   func(context.Context) error
}

// Disk erases the disk at path, which must not be in use.
func Disk(ctx context.Context, path string, progress Progress) (*inventory.Erased, error) {
	d, err := open(path)
	if err != nil {
		return nil, err
	}
	defer d.close()
	d.progress = progress
	return d.erase(ctx)
}

func open(path string) (*disk, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d := &disk{name: filepath.Base(path), block: st.Mode()&os.ModeDevice != 0, size: st.Size(), poll: time.Second, progress: func(string, uint64, uint64) {}}
	flags := os.O_RDWR
	if d.block {
		flags |= unix.O_EXCL // fail if somebody has it mounted
	}
	if d.file, err = os.OpenFile(path, flags, 0); err != nil {
		return nil, err
	}
	if d.direct, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
		d.direct = d.file
	}
	if !d.block {
		return d, nil
	}
	var bytes uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&bytes))); errno != 0 {
		d.close()
		return nil, fmt.Errorf("%s: size: %w", path, errno)
	}
	d.size = int64(bytes)
	switch {
	case strings.HasPrefix(d.name, "nvme"):
		d.nvme = nvmeFile{d.file}
	case strings.HasPrefix(d.name, "sd"):
		d.scsi = scsiFile{d.file}
	}
	return d, nil
}

func (d *disk) close() {
	if d.direct != d.file {
		_ = d.direct.Close()
	}
	_ = d.file.Close()
}

// ladder lists the rungs, the thorough ones first.
func (d *disk) ladder() []rung {
	var rungs []rung
	if d.nvme != nil {
		rungs = append(rungs,
			rung{name: "NVMe sanitize", run: d.nvmeSanitize},
			rung{name: "NVMe format with secure erase", run: d.nvmeFormat})
	}
	if d.scsi != nil {
		rungs = append(rungs,
			rung{name: "ATA secure erase", run: d.ataErase},
			rung{name: "SCSI sanitize", run: d.scsiSanitize})
	}
	return append(rungs,
		rung{name: "discard", zeros: true, run: d.discard},
		rung{name: "overwrite with zeros", zeros: true, run: d.overwrite})
}

func (d *disk) erase(ctx context.Context) (*inventory.Erased, error) {
	if d.size < 2*edge {
		return nil, fmt.Errorf("%s holds %d bytes: too small to be a disk", d.name, d.size)
	}
	began := time.Now()
	before, err := d.sample(places(d.size))
	if err != nil {
		return nil, err
	}
	out := &inventory.Erased{Bytes: uint64(d.size)}
	rungs := d.ladder()
	for i, r := range rungs {
		d.progress(r.name, 0, uint64(d.size))
		err := r.run(ctx)
		if err == nil {
			err = d.prove(r, before, out)
		}
		switch {
		case err == nil:
			out.Method, out.TookMS = r.name, time.Since(began).Milliseconds()
			return out, d.reread()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, errPassed) || i == len(rungs)-1:
			return nil, fmt.Errorf("%s: %s: %w", d.name, r.name, err)
		}
		out.Passed = append(out.Passed, r.name+": "+err.Error())
	}
	panic("the ladder has no last rung")
}

// discard tells the disk that nothing on it is needed. What it reads like afterwards is the disk's choice: prove looks.
func (d *disk) discard(ctx context.Context) error {
	if !d.block {
		return passed("it is no block device")
	}
	// In pieces: one call for a large disk can outlast every time-out on its way.
	const piece = 64 << 30
	for off := int64(0); off < d.size && ctx.Err() == nil; off += piece {
		r := [2]uint64{uint64(off), uint64(min(piece, d.size-off))}
		switch err := d.ioctl(unix.BLKDISCARD, unsafe.Pointer(&r)); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
			return passed("the disk cannot discard")
		case err != nil:
			return fmt.Errorf("at %d: %w", off, err)
		}
		d.progress("discard", r[0]+r[1], uint64(d.size))
	}
	return ctx.Err()
}

// overwrite writes zeros as data all over the disk: a command to zero may be one to unmap.
func (d *disk) overwrite(ctx context.Context) error {
	return d.writeZeros(ctx, 0, d.size, func(done int64) { d.progress("overwrite with zeros", uint64(done), uint64(d.size)) })
}

// zeros is what is written everywhere, one for all disks that are erased side by side.
var zeros = sync.OnceValue(func() []byte { return aligned(4 << 20) })

func (d *disk) writeZeros(ctx context.Context, off, length int64, tell func(done int64)) error {
	buf := zeros()
	buf = buf[:min(length, int64(len(buf)))]
	for done := int64(0); done < length; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := min(int64(len(buf)), length-done)
		f := d.direct
		if (off+done)%align != 0 || n%align != 0 {
			f = d.file // an odd end
		}
		if _, err := f.WriteAt(buf[:n], off+done); err != nil {
			return fmt.Errorf("write %d zeros at %d: %w; what is on the disk cannot be erased by writing", n, off+done, err)
		}
		done += n
		tell(done)
	}
	return nil
}

// flush brings what was written to the medium and empties the page cache, so that what is read next is on the medium.
func (d *disk) flush() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	if d.block {
		if err := d.ioctl(unix.BLKFLSBUF, nil); err != nil {
			return fmt.Errorf("empty the cache: %w", err)
		}
	}
	return unix.Fadvise(int(d.file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// reread makes the kernel forget the partitions that were there.
func (d *disk) reread() error {
	if !d.block || strings.HasPrefix(d.name, "loop") {
		return nil
	}
	var err error
	for range 50 {
		if err = d.ioctl(unix.BLKRRPART, nil); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(200 * time.Millisecond) // something that saw the disk change is still looking at it
	}
	if err != nil {
		return fmt.Errorf("%s: make the kernel read the partition table again: %w", d.name, err)
	}
	return nil
}

func (d *disk) ioctl(req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// align is what O_DIRECT needs of offsets, lengths and memory; no disk asks for more than a page.
const align = 4096

func aligned(n int) []byte {
	n = (n + align - 1) / align * align
	raw := make([]byte, n+align)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (align - 1)
	return raw[skip : int(skip)+n : int(skip)+n]
}
