package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// peekSize is how much of a stream tells its kind; a tar header's magic ends at 262.
const peekSize = 512

// A compression is known by its first bytes, never by a file's name.
type compression struct {
	name  string
	magic string
	open  func(*bufio.Reader) (io.Reader, func(), error)
}

var compressions = []compression{
	{"gzip", "\x1f\x8b", openGzip},
	{"xz", "\xfd7zXZ\x00", openXZ},
	{"zstd", "\x28\xb5\x2f\xfd", openZstd},
	{"bzip2", "BZh", openBzip2},
	{"lz4", "\x04\x22\x4d\x18", func(r *bufio.Reader) (io.Reader, func(), error) { return openLZ4(r) }},
	// The legacy format is refused, with advice.
	{"lz4", "\x02\x21\x4c\x18", func(r *bufio.Reader) (io.Reader, func(), error) { return openLZ4(r) }},
}

// skippable returns the length of a skippable frame at the beginning of head, or 0. Such frames look the same
// in zstd and lz4 (RFC 8878 section 3.1.2), so the next frame tells which it is. pzstd begins with one.
func skippable(head []byte) int64 {
	if len(head) < 8 || head[0]&0xf0 != 0x50 || string(head[1:4]) != "\x2a\x4d\x18" {
		return 0
	}
	return 8 + int64(binary.LittleEndian.Uint32(head[4:]))
}

func openZstd(r *bufio.Reader) (io.Reader, func(), error) {
	// The format allows a window of 2 GiB. 128 MiB is that of `zstd --long` (27), and the most that the zstd
	// program accepts by default.
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return nil, nil, err
	}
	return z, z.Close, nil
}

func compressionOf(head []byte) *compression {
	for i, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return &compressions[i]
		}
	}
	return nil
}

// decompress unpacks src if it is compressed, and otherwise passes it on. done releases the decompressor.
func decompress(src io.Reader) (r *bufio.Reader, done func(), err error) {
	defer recovered("source", &err)
	in := bufio.NewReaderSize(src, 1<<20)
	head, err := in.Peek(peekSize)
	for n := skippable(head); n > 0; n = skippable(head) {
		if _, err := io.CopyN(io.Discard, in, n); err != nil {
			return nil, nil, fmt.Errorf("skippable frame: %w", cut(err))
		}
		head, err = in.Peek(peekSize)
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, nil, err
	case len(head) == 0:
		return nil, nil, errors.New("the source is empty")
	}
	c := compressionOf(head)
	if c == nil {
		return in, func() {}, nil
	}
	z, done, err := c.open(in)
	if err != nil {
		return nil, nil, fmt.Errorf("%s stream: %w", c.name, cut(err))
	}
	out := bufio.NewReaderSize(&unpacking{z, c.name}, 1<<20)
	inner, err := out.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) {
		done()
		return nil, nil, err
	}
	if len(inner) == 0 {
		done()
		return nil, nil, fmt.Errorf("%s stream: nothing in it", c.name)
	}
	if again := compressionOf(inner); again != nil {
		done()
		return nil, nil, fmt.Errorf("the source is %s inside %s; unpack one of the two first", again.name,
			c.name)
	}
	return out, done, nil
}

// unpacking names the decompressor in an error.
type unpacking struct {
	r    io.Reader
	name string
}

func (u *unpacking) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s stream: %w", u.name, cut(err))
	}
	return n, err
}

// cut says in plain words that a stream ended too early.
func cut(err error) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return errors.New("its window is larger than the 128 MiB that zstd itself takes without being " +
			"told; unpack it with `zstd -d --long=31` and import the result")
	case errors.Is(err, xz.ErrMemlimit):
		return errors.New(
			"its dictionary is larger than the 64 MiB of xz -9; unpack it with `xz -d` and import the result")
	}
	// xz.ErrBuf says that it wants more bytes than there are.
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, xz.ErrBuf) {
		return fmt.Errorf("cut off before its end, or damaged (%w); fetch the file again",
			io.ErrUnexpectedEOF)
	}
	return err
}

// formatOf returns the format of an unpacked stream: "qcow2" or "raw". It returns an error for a stream that
// is certainly no disk image, or in a format that we do not read.
func formatOf(head []byte) (string, error) {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	lower := bytes.ToLower(bytes.TrimLeft(head[:min(len(head), 64)], " \t\r\n\ufeff"))
	convert := func(what string) error {
		return fmt.Errorf("the source is a %s image; convert it with `qemu-img convert -O qcow2 IN OUT` "+
			"and import that", what)
	}
	switch {
	case at(0, "QFI\xfb\x00\x00\x00\x01"):
		return "", errors.New("the source is a qcow image of version 1; " +
			"convert it with `qemu-img convert -f qcow -O qcow2 IN OUT` and import that")
	case at(0, "QFI\xfb"):
		return "qcow2", nil
	case at(0, "QED\x00"):
		return "", convert("QED")
	case at(0, "WithoutFreeSpace"), at(0, "WithouFreSpacExt"):
		return "", convert("Parallels")
	case at(0, "KDMV"), bytes.HasPrefix(lower, []byte("# disk descriptorfile")):
		return "", convert("VMDK")
	case at(0, "vhdxfile"):
		return "", convert("VHDX")
	case at(0, "conectix"):
		return "", convert("VHD")
	case at(0x40, "\x7f\x10\xda\xbe"):
		return "", convert("VDI")
	case at(257, "ustar") && strings.HasSuffix(string(bytes.TrimRight(head[:100], "\x00")), ".ovf"):
		return "", errors.New("the source is an OVA, an archive with a disk in it; " +
			"extract the disk with `tar xf FILE`, convert it with `qemu-img convert -O qcow2 " +
			"NAME-disk1.vmdk OUT` and import that")
	case at(257, "ustar"):
		return "", errors.New("the source is a tar archive, not a disk image; " +
			"extract the image (disk.raw, *.img, *.qcow2) and import that")
	case at(0, "7z\xbc\xaf\x27\x1c"), at(0, "Rar!\x1a\x07"):
		return "", errors.New(
			"the source is a 7z or RAR archive, not a disk image; extract the image and import that")
	case at(0, "\x5d\x00\x00") && len(head) > 13 && (head[12] == 0 || head[12] == 0xff):
		return "", errors.New(
			"the source is an lzma file; unpack it with `xz -d --format=lzma` and import the result")
	case at(0, "\x1f\x9d"):
		return "", errors.New(
			"the source is compressed by the old compress; unpack it with `gzip -d` and import the result")
	case at(0, "\x89LZO\x00"):
		return "", errors.New("the source is an lzop file; unpack it with `lzop -d` and import the result")
	case at(0, "PK\x03\x04"):
		return "", errors.New(
			"the source is a zip archive, not a disk image; extract the image and import that")
	case bytes.HasPrefix(lower, []byte("<!doctype")), bytes.HasPrefix(lower, []byte("<html")),
		bytes.HasPrefix(lower, []byte("<?xml")):
		return "", errors.New(
			"the source is a web page, not a disk image; is the URL that of the file itself?")
	}
	return "raw", nil
}
