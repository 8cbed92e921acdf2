package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/images"
)

func TestImportRaw(t *testing.T) {
	const chunk = images.ChunkSize
	for name, n := range map[string]int{
		"one byte": 1, "one sector": 512, "odd": 1000, "one chunk": chunk, "chunk and a byte": chunk + 1,
		"chunk less a sector": chunk - 512, "several": 9*chunk + 777,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			src := disk(n, 1)
			info := add(t, s, "x", src)
			want := append(bytes.Clone(src), make([]byte, -n&511)...)
			if got := readBack(t, s, info.ID); !bytes.Equal(got, want) {
				t.Errorf("the image reads back as %d bytes that differ from the %d imported", len(got),
					len(want))
			}
			if info.RawSize != int64(len(want)) {
				t.Errorf("RawSize = %d, want %d", info.RawSize, len(want))
			}
			// A new Store finds the whole catalogue on the disk.
			s.Close()
			if diff := cmp.Diff(s.List(), open(t, s.dir).List()); diff != "" {
				t.Errorf("opened again (-before +after):\n%s", diff)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	raw := disk(images.ChunkSize+5000, 1)
	tests := []struct {
		name string
		src  io.Reader
		opt  ImportOptions
		want string
	}{
		{"empty", strings.NewReader(""), ImportOptions{Force: true, Name: "x"}, "the source is empty"},
		{
			"wrong checksum", bytes.NewReader(raw),
			ImportOptions{Force: true, Name: "x", SHA256: strings.Repeat("ab", 32)},
			"want abababab",
		},
		{
			"checksum that is none", bytes.NewReader(raw),
			ImportOptions{Force: true, Name: "x", SHA256: "abc"},
			"want 64 hex digits",
		},
		{"no name", bytes.NewReader(raw), ImportOptions{}, "image name: empty"},
		{"bad name", bytes.NewReader(raw), ImportOptions{Force: true, Name: "../../etc"}, "image name"},
		{
			"a name like an id", bytes.NewReader(raw),
			ImportOptions{Force: true, Name: "4bdb08512bba"},
			"looks like an id",
		},
		{
			"unknown format", bytes.NewReader(raw),
			ImportOptions{Force: true, Name: "x", Format: "vmdk"},
			"format \"vmdk\"",
		},
		{
			"no qcow2", bytes.NewReader(raw),
			ImportOptions{Force: true, Name: "x", Format: "qcow2"},
			"qcow2: no header",
		},
		{
			"VMDK", strings.NewReader("KDMV" + strings.Repeat("\x00", 600)),
			ImportOptions{Force: true, Name: "x"},
			"qemu-img convert",
		},
		{
			"tar", strings.NewReader(strings.Repeat("\x00", 257) + "ustar" + strings.Repeat("\x00", 600)),
			ImportOptions{Force: true, Name: "x"},
			"tar archive",
		},
		{
			"web page", strings.NewReader("\n<!DOCTYPE html><html>404"),
			ImportOptions{Force: true, Name: "x"},
			"web page",
		},
		{
			"source fails", io.MultiReader(bytes.NewReader(raw), failing{}),
			ImportOptions{Force: true, Name: "x"},
			"at byte 4199304: connection reset",
		},
		{
			"source is cut", io.MultiReader(bytes.NewReader(raw), cutting{}),
			ImportOptions{Force: true, Name: "x"},
			"unexpected EOF",
		},
		{
			"source ends in an error that wraps EOF", io.MultiReader(bytes.NewReader(raw), wrapping{}),
			ImportOptions{Force: true, Name: "x"},
			"proxy: EOF",
		},
		{
			"source panics", io.MultiReader(bytes.NewReader(raw), panicking{}),
			ImportOptions{Force: true, Name: "x"},
			"gave up",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			_, err := s.Import(t.Context(), tt.src, tt.opt)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Import = %v, want an error with %q", err, tt.want)
			}
			if got := visible(t, s); len(got) != 0 || len(s.List()) != 0 {
				t.Errorf("the store holds %v, want nothing", got)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// cutting ends like the body of a cut HTTP answer.
type cutting struct{}

func (cutting) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type wrapping struct{}

func (wrapping) Read([]byte) (int, error) { return 0, fmt.Errorf("proxy: %w", io.EOF) }

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("index out of range") }

func TestImportChecksTheSource(t *testing.T) {
	s := open(t, t.TempDir())
	src := disk(5000, 1)
	sum := sha256.Sum256(src)
	var last Progress
	info, err := s.Import(t.Context(), bytes.NewReader(src), ImportOptions{
		Force:    true,
		Name:     "x",
		SHA256:   " " + strings.ToUpper(hex.EncodeToString(sum[:])) + "\n",
		Size:     5000,
		Progress: func(p Progress) { last = p },
	})
	if err != nil {
		t.Fatal(err)
	}
	if last.Done != 5000 || last.Total != 5000 || last.Raw != info.RawSize || last.Phase != "receive" {
		t.Errorf("last progress is %+v, want all of it done", last)
	}
}

// endless returns random bytes for ever, and cancels after some of them.
type endless struct {
	rng    *rand.ChaCha8
	left   int
	cancel func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left -= len(p); e.left < 0 {
		e.cancel()
	}
	return e.rng.Read(p)
}

func TestCancelLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Import(ctx, &endless{rand.NewChaCha8([32]byte{}), 20 << 20, cancel},
		ImportOptions{Force: true, Name: "x"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Import = %v, want context.Canceled", err)
	}
	if got := visible(t, s); len(got) != 0 {
		t.Errorf("the store holds %v, want nothing", got)
	}
}
