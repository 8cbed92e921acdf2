package store

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/pxectl/pxectl/internal/testnet"
)

// No cut makes a stream a shorter image, even between two blocks, where the library alone sees a good end.
func TestLZ4CutAnywhere(t *testing.T) {
	testnet.Long(t)
	src := append(disk(256, 1), make([]byte, 200<<10)...)
	for name, options := range map[string][]lz4.Option{
		"plain": {lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)},
		"summed": {
			lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(true), lz4.BlockChecksumOption(true),
			lz4.SizeOption(uint64(len(src))),
		},
		"default": nil,
	} {
		packed := lz4ed(t, src, options...)
		skippable := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil,
			lz4SkippableMagic+3), 5), "hello"...)
		whole := bytes.Join([][]byte{packed, skippable, packed}, nil)
		if got, err := unlz4(whole); err != nil || !bytes.Equal(got, append(bytes.Clone(src), src...)) {
			t.Errorf("%s: two frames with a skippable one between them: %d bytes, %v; want both contents",
				name, len(got), err)
		}
		for n := range len(packed) {
			if got, err := unlz4(packed[:n]); err == nil && n > 0 {
				t.Errorf("%s: cut to %d of %d bytes: %d bytes and no error", name, n, len(packed), len(got))
			}
		}
		if _, err := unlz4(append(bytes.Clone(packed), "rubbish"...)); err == nil {
			t.Errorf("%s: rubbish behind the frame is no error", name)
		}
	}
	refused(t, append([]byte("\x02\x21\x4c\x18"), make([]byte, 100)...), "legacy format")
}

func unlz4(packed []byte) ([]byte, error) {
	r, _, err := openLZ4(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 64<<20))
}

func FuzzLZ4(f *testing.F) {
	f.Add(lz4ed(f, []byte("hello, hello, hello, hello, hello, hello"), lz4.BlockChecksumOption(true)))
	f.Add(lz4ed(f, disk(5000, 1), lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)))
	f.Add([]byte("\x53\x2a\x4d\x18\x01\x00\x00\x00x"))
	f.Fuzz(func(_ *testing.T, packed []byte) {
		_ = guarded(func() error { _, err := unlz4(packed); return err })
	})
}

// guarded runs f under recovered, as the import does.
func guarded(f func() error) (err error) {
	defer recovered("source", &err)
	return f()
}
