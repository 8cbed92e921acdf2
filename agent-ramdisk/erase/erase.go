package erase

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/inventory"
)

// Progress receives the progress of a method, in bytes of the disk. For the disk's own commands it is an
// estimate.
type Progress func(method string, done, total uint64)

// A disk is a disk under erasure. Tests give it a fake drive.
type disk struct {
	*blockdev.Device

	nvme     nvmeDrive // nil unless it is an NVMe drive
	scsi     scsiDrive // nil unless it takes SCSI commands
	poll     time.Duration
	progress Progress
}

// errPassed says that the disk cannot do a method, so that the next one is tried.
var errPassed = errors.New("passed over")

// passed makes an error that is errPassed and gives the reason.
func passed(format string, args ...any) error { return passedOver{fmt.Sprintf(format, args...)} }

type passedOver struct{ why string }

func (p passedOver) Error() string        { return p.why }
func (p passedOver) Is(target error) bool { return target == errPassed }

// A method is one way to erase.
type method struct {
	name  string
	zeros bool // afterwards the disk reads zeros; otherwise anything but the old data
	run   func(context.Context) error
}

// Disk erases the disk at path, which must not be in use.
func Disk(ctx context.Context, path string, progress Progress) (*inventory.Erased, error) {
	d, err := open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	d.progress = progress
	return d.erase(ctx)
}

func open(path string) (*disk, error) {
	dev, err := blockdev.Open(path)
	if err != nil {
		return nil, err
	}
	d := &disk{Device: dev, poll: time.Second, progress: func(string, uint64, uint64) {}}
	switch {
	case !d.Block:
	case strings.HasPrefix(d.Name, "nvme"):
		d.nvme = nvmeFile{d.File}
	case strings.HasPrefix(d.Name, "sd"):
		d.scsi = scsiFile{d.File}
	}
	return d, nil
}

// methods lists the methods, the most thorough first.
func (d *disk) methods() []method {
	var methods []method
	if d.nvme != nil {
		methods = append(methods,
			method{name: "NVMe sanitize", run: d.nvmeSanitize},
			method{name: "NVMe format with secure erase", run: d.nvmeFormat})
	}
	if d.scsi != nil {
		methods = append(methods,
			method{name: "ATA secure erase", run: d.ataErase},
			method{name: "SCSI sanitize", run: d.scsiSanitize})
	}
	return append(methods,
		method{name: "discard", zeros: true, run: d.discard},
		method{name: "overwrite with zeros", zeros: true, run: d.overwrite})
}

func (d *disk) erase(ctx context.Context) (*inventory.Erased, error) {
	if d.Size < 2*edge {
		return nil, fmt.Errorf("%s holds %d bytes: too small to be a disk", d.Name, d.Size)
	}
	began := time.Now()
	before, err := d.sample(places(d.Size))
	if err != nil {
		return nil, err
	}
	out := &inventory.Erased{Bytes: uint64(d.Size)}
	methods := d.methods()
	for i, r := range methods {
		d.progress(r.name, 0, uint64(d.Size))
		err := r.run(ctx)
		if err == nil {
			err = d.prove(r, before, out)
		}
		switch {
		case err == nil:
			out.Method, out.TookMS = r.name, time.Since(began).Milliseconds()
			return out, d.Reread()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, errPassed) || i == len(methods)-1:
			return nil, fmt.Errorf("%s: %s: %w", d.Name, r.name, err)
		}
		out.Passed = append(out.Passed, r.name+": "+err.Error())
	}
	panic("there is no last method")
}

// discard tells the disk that nothing on it is needed. The disk chooses what it reads afterwards, so prove
// checks.
func (d *disk) discard(ctx context.Context) error {
	if !d.Block {
		return passed("it is no block device")
	}
	err := d.Device.Discard(ctx, 0, func(done int64) { d.progress("discard", uint64(done), uint64(d.Size)) })
	if errors.Is(err, blockdev.ErrNoDiscard) || errors.Is(err, unix.EINVAL) {
		return passed("%v", blockdev.ErrNoDiscard)
	}
	return err
}

// overwrite writes zeros as data all over the disk: the disk may turn a command to zero into an unmap.
func (d *disk) overwrite(ctx context.Context) error {
	return d.writeZeros(ctx, 0, d.Size, func(done int64) {
		d.progress("overwrite with zeros", uint64(done), uint64(d.Size))
	})
}

// zeros is written everywhere; all disks that are erased at once share it.
var zeros = sync.OnceValue(func() []byte { return blockdev.Buffer(4 << 20) })

func (d *disk) writeZeros(ctx context.Context, off, length int64, tell func(done int64)) error {
	buf := zeros()
	buf = buf[:min(length, int64(len(buf)))]
	for done := int64(0); done < length; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := min(int64(len(buf)), length-done)
		if err := d.WriteDirect(buf[:n], off+done); err != nil {
			return fmt.Errorf("write %d zeros at %d: %w; what is on the disk cannot be erased by writing", n,
				off+done, err)
		}
		done += n
		tell(done)
	}
	return nil
}
