package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// The LZ4 frame format, version 1.6.4, is lz4_Frame_format.md in github.com/lz4/lz4.
const (
	lz4Magic          = 0x184D2204
	lz4LegacyMagic    = 0x184C2102
	lz4SkippableMagic = 0x184D2A50 // and the next 15
	lz4MaxBlock       = 4 << 20
)

func openLZ4(r io.Reader) (io.Reader, func(), error) {
	return lz4.NewReader(&lz4Frames{r: bufio.NewReader(r)}), func() {}, nil
}

// lz4Frames passes LZ4 frames on and checks that they are complete. The library takes a stream that ends
// between two blocks for a complete one.
type lz4Frames struct {
	r       *bufio.Reader
	pass    int64 // bytes to pass on before the next field
	inFrame bool
	sums    bool // each block is followed by a checksum of 4 bytes
	end     int64
}

func (f *lz4Frames) Read(p []byte) (int, error) {
	for f.pass == 0 {
		if err := f.field(); err != nil {
			return 0, err
		}
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.pass)])
	f.pass -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// field reads the next field and returns how many bytes may pass.
func (f *lz4Frames) field() error {
	word, err := f.r.Peek(4)
	if errors.Is(err, io.EOF) && (len(word) > 0 || f.inFrame) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err // io.EOF between two frames is the end
	}
	n := binary.LittleEndian.Uint32(word)
	if f.inFrame {
		if n == 0 { // the end mark
			f.inFrame, f.pass = false, 4+f.end
			return nil
		}
		size := int64(n &^ (1 << 31)) // the highest bit marks uncompressed data
		if size > lz4MaxBlock {
			return fmt.Errorf("a block of %d bytes, at most %d; the file is damaged", size, lz4MaxBlock)
		}
		if f.pass = 4 + size; f.sums {
			f.pass += 4
		}
		return nil
	}
	switch {
	case n == lz4LegacyMagic:
		return errors.New("the legacy format of `lz4 -l` is not read; pack it again without -l")
	case n&^15 == lz4SkippableMagic:
		head, err := f.r.Peek(8)
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		f.pass = 8 + int64(binary.LittleEndian.Uint32(head[4:]))
		return nil
	case n != lz4Magic:
		return fmt.Errorf("something that is no LZ4 frame follows (%#08x); the file is damaged", n)
	}
	head, err := f.r.Peek(6)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	const blockSums, contentSize, contentSum, dictionary = 1 << 4, 1 << 3, 1 << 2, 1 << 0
	flags := head[4]
	if flags&dictionary != 0 {
		return errors.New("packed with a dictionary, which is not read; pack it again without one")
	}
	f.inFrame, f.pass, f.sums, f.end = true, 7, flags&blockSums != 0, 0
	if flags&contentSize != 0 {
		f.pass += 8
	}
	if flags&contentSum != 0 {
		f.end = 4
	}
	return nil
}
