package store

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/therootcompany/xz"
)

// openwrtTrailer begins the trailer of 16 bytes behind OpenWrt's images: its fwtool appends a signature and a
// description.
const openwrtTrailer = "FWx0"

// checkTrailing reads the bytes behind a compressed stream; taken are those that the decompressor has read
// already. Zeros are padding, as tapes and object stores add it, and OpenWrt's signature is not a part of the
// image. Other bytes are an error: nobody can say what they are.
func checkTrailing(name string, taken []byte, rest io.Reader) error {
	var count int64
	clean := true
	var last []byte
	buf := append(make([]byte, 0, 64<<10), taken...)
	for {
		count += int64(len(buf))
		clean = clean && len(bytes.Trim(buf, "\x00")) == 0
		last = append(last, buf[max(0, len(buf)-16):]...)
		last = last[max(0, len(last)-16):]
		n, err := rest.Read(buf[:cap(buf)])
		buf = buf[:n]
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if clean || bytes.HasPrefix(last, []byte(openwrtTrailer)) {
		return io.EOF
	}
	return fmt.Errorf("%s stream: it is whole, but %d bytes that are not part of it stand behind its end; "+
		"cut them off if they do not belong to the image (`head -c -%d`)", name, count, count)
}

// A gzipReader reads streams that follow each other, and checks the bytes behind the last one.
type gzipReader struct {
	z  *gzip.Reader
	in *bufio.Reader // a ByteReader, so the decompressor reads nothing behind a stream
}

func openGzip(in *bufio.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, nil, err
	}
	z.Multistream(false)
	return &gzipReader{z, in}, func() {}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	if err != io.EOF {
		return n, err
	}
	if next, _ := g.in.Peek(2); string(next) != "\x1f\x8b" {
		return n, checkTrailing("gzip", nil, g.in)
	}
	if err := g.z.Reset(g.in); err != nil {
		return n, err
	}
	g.z.Multistream(false)
	return n, nil
}

// A bzip2Reader keeps the bytes that its decompressor took for the head of another stream.
type bzip2Reader struct {
	z    io.Reader
	in   *bufio.Reader
	last [2]byte
}

func openBzip2(in *bufio.Reader) (io.Reader, func(), error) {
	b := &bzip2Reader{in: in}
	b.z = bzip2.NewReader(struct {
		io.Reader
		io.ByteReader
	}{in, b})
	return b, func() {}, nil
}

// ReadByte serves the decompressor.
func (b *bzip2Reader) ReadByte() (byte, error) {
	c, err := b.in.ReadByte()
	if err == nil {
		b.last = [2]byte{b.last[1], c}
	}
	return c, err
}

func (b *bzip2Reader) Read(p []byte) (int, error) {
	n, err := b.z.Read(p)
	if err == bzip2.StructuralError("bad magic value in continuation file") {
		return n, checkTrailing("bzip2", b.last[:], b.in)
	}
	return n, err
}

// An xzReader keeps the last bytes that its decompressor read, since that reads ahead.
type xzReader struct {
	z      *xz.Reader
	in     *bufio.Reader
	recent []byte
}

const recentSize = 64 << 10

func openXZ(in *bufio.Reader) (_ io.Reader, _ func(), err error) {
	x := &xzReader{in: in}
	// xz -9 asks for 64 MiB of dictionary, which is the most that this reader allows.
	x.z, err = xz.NewReader(readerFunc(x.read), xz.DefaultDictMax)
	return x, func() {}, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (x *xzReader) read(p []byte) (int, error) {
	n, err := x.in.Read(p)
	x.recent = append(x.recent, p[:n]...)
	if len(x.recent) > 2*recentSize {
		x.recent = append(x.recent[:0], x.recent[len(x.recent)-recentSize:]...)
	}
	return n, err
}

func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.z.Read(p)
	if errors.Is(err, xz.ErrFormat) {
		if end := xzEnd(x.recent); end > 0 {
			return n, checkTrailing("xz", x.recent[end:], x.in)
		}
	}
	return n, err
}

// xzEnd finds the end of the last stream by its footer's checksum (The .xz File Format, section 2.1.2).
func xzEnd(b []byte) int {
	for {
		i := bytes.LastIndex(b, []byte("YZ"))
		if i < 10 {
			return -1
		}
		if crc32.ChecksumIEEE(b[i-6:i]) == binary.LittleEndian.Uint32(b[i-10:]) {
			return i + 2
		}
		b = b[:i+1]
	}
}
