package images_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/images"
)

// A chunk travels compressed. Two hashes check it: one of the bytes that travelled, and one of the bytes for
// the disk.
func ExampleDecoder() {
	raw := bytes.Repeat([]byte("an operating system\n"), 1000)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	frame := encoder.EncodeAll(raw, nil)
	chunk := images.Chunk{
		RawLength: int64(len(raw)),
		Length:    int64(len(frame)),
		Sum:       images.HashChunk(frame),
		Hash:      images.HashChunk(raw),
	}

	decoder, err := images.NewDecoder()
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := decoder.DecodeChunk(make([]byte, len(raw)), frame, chunk)
	fmt.Println(len(got), err)

	got[7] ^= 1 // the disk has other bytes
	fmt.Println(errors.Is(chunk.Verify(got), images.ErrChunk))

	frame[7] ^= 1 // damaged on the way
	_, err = decoder.DecodeChunk(make([]byte, len(raw)), frame, chunk)
	fmt.Println(errors.Is(err, images.ErrChunk))
	// Output:
	// 20000 <nil>
	// true
	// true
}
