package lab

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// copySparse copies from to to and keeps the holes. to appears when it is complete.
func copySparse(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	part := to + ".part"
	dst, err := os.Create(part)
	if err != nil {
		return err
	}
	err = copyData(dst, src, st.Size())
	if closed := dst.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(part)
		return err
	}
	return os.Rename(part, to)
}

func copyData(dst, src *os.File, size int64) error {
	for at := int64(0); ; {
		data, err := src.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) { // no data from here on
			return dst.Truncate(size)
		}
		if err != nil {
			return err
		}
		if at, err = src.Seek(data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := src.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, at-data); err != nil {
			return err
		}
	}
}
