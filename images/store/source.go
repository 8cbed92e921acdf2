package store

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// peekSize is how much of a stream is looked at to tell what it is; a tar header's magic
// ends at 262.
const peekSize = 512

// A compression is told by its first bytes, never by a file's name.
type compression struct {
	name  string
	magic string
	open  func(io.Reader) (io.Reader, func(), error)
}

var compressions = []compression{
	{"gzip", "\x1f\x8b", func(r io.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}},
	{"xz", "\xfd7zXZ\x00", func(r io.Reader) (io.Reader, func(), error) {
		// xz -9 asks for 64 MiB of dictionary, which is also the most that this reader gives.
		z, err := xz.NewReader(r, xz.DefaultDictMax)
		return z, func() {}, err
	}},
	{"zstd", "\x28\xb5\x2f\xfd", openZstd},
	// A skippable frame may come first, as pzstd writes them (RFC 8878 section 3.1.2).
	{"zstd", "\x50\x2a\x4d\x18", openZstd},
	{"bzip2", "BZh", func(r io.Reader) (io.Reader, func(), error) {
		return bzip2.NewReader(r), func() {}, nil
	}},
	{"lz4", "\x04\x22\x4d\x18", openLZ4},
	{"lz4", "\x02\x21\x4c\x18", openLZ4}, // the legacy format: refused with a word on what to do
}

func openZstd(r io.Reader) (io.Reader, func(), error) {
	// 2 GiB of window would be allowed by the format; 128 MiB is what `zstd --long` (27) asks for and
	// what the zstd program itself accepts unless told otherwise.
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

// decompress unpacks src if it is compressed and otherwise passes it on. done releases
// what unpacking took.
func decompress(src io.Reader) (r *bufio.Reader, done func(), err error) {
	defer recovered("source", &err)
	in := bufio.NewReaderSize(src, 1<<20)
	head, err := in.Peek(peekSize)
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
		return nil, nil, fmt.Errorf("the source is %s inside %s; unpack one of the two first", again.name, c.name)
	}
	return out, done, nil
}

// unpacking names the decompressor in what goes wrong.
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
	// xz.ErrBuf is its word for more bytes wanted than there are.
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, xz.ErrBuf) {
		return fmt.Errorf("cut off before its end, or damaged (%w); fetch the file again", io.ErrUnexpectedEOF)
	}
	return err
}

// formatOf tells what an unpacked stream begins like: "qcow2", "raw", or an error for what is
// surely no disk image or one that we do not read.
func formatOf(head []byte) (string, error) {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	lower := bytes.ToLower(bytes.TrimLeft(head[:min(len(head), 64)], " \t\r\n\ufeff"))
	convert := func(what string) error {
		return fmt.Errorf("the source is a %s image; convert it with `qemu-img convert -O qcow2 IN OUT` and import that", what)
	}
	switch {
	case at(0, "QFI\xfb"):
		return "qcow2", nil
	case at(0, "KDMV"), bytes.HasPrefix(lower, []byte("# disk descriptorfile")):
		return "", convert("VMDK")
	case at(0, "vhdxfile"):
		return "", convert("VHDX")
	case at(0, "conectix"):
		return "", convert("VHD")
	case at(0x40, "\x7f\x10\xda\xbe"):
		return "", convert("VDI")
	case at(257, "ustar"):
		return "", errors.New("the source is a tar archive, not a disk image; extract the image (disk.raw, *.img, *.qcow2) and import that")
	case at(0, "PK\x03\x04"):
		return "", errors.New("the source is a zip archive, not a disk image; extract the image and import that")
	case bytes.HasPrefix(lower, []byte("<!doctype")), bytes.HasPrefix(lower, []byte("<html")), bytes.HasPrefix(lower, []byte("<?xml")):
		return "", errors.New("the source is a web page, not a disk image; is the URL that of the file itself?")
	}
	return "raw", nil
}
