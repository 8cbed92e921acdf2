package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
)

// flipped imports src with one bit changed, at many places. It expects an error or, where the bit has no
// meaning (a file's date), the same image.
func flipped(t *testing.T, packed []byte, want images.Hash) {
	t.Helper()
	s := open(t, t.TempDir())
	refused, flips := 0, 50
	if testing.Short() {
		flips = 20
	}
	for i := range flips {
		at := i * len(packed) / flips
		changed := bytes.Clone(packed)
		changed[at] ^= 1 << (i % 8)
		info, err := s.Import(t.Context(), bytes.NewReader(changed), ImportOptions{
			Force: true, Name: "x", Format: "raw",
		})
		switch {
		case err != nil:
			refused++
		case info.RawHash == want:
		case at < 8 && bytes.HasPrefix(changed[at+1:], packed[at+1:]):
			// The magic is gone: the store imported it as raw bytes.
		default:
			t.Errorf("bit %d of byte %d of %d changed: another image and no error", i%8, at, len(packed))
		}
	}
	if refused < flips/2 {
		t.Errorf("%d of %d changed streams were refused", refused, flips)
	}
	for _, name := range visible(t, s) {
		if strings.HasPrefix(name, tempPrefix) {
			t.Errorf("%s was left", name)
		}
	}
}

func TestFlippedBits(t *testing.T) {
	src := disk(64<<10, 1)
	s := open(t, t.TempDir())
	want := add(t, s, "x", src).RawHash
	for name, packed := range map[string][]byte{
		"gzip": gzipped(t, src), "zstd": zstded(t, src),
		"lz4": lz4ed(t, src),
	} {
		t.Run(name, func(t *testing.T) { flipped(t, packed, want) })
	}
}

func TestFlippedBitsOfPrograms(t *testing.T) {
	testnet.Need(t, "xz", "bzip2", "zstd", "lz4", "qemu-img")
	dir := t.TempDir()
	src := disk(64<<10, 1)
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, src, 0o644); err != nil {
		t.Fatal(err)
	}
	want := add(t, open(t, t.TempDir()), "x", src).RawHash
	for _, program := range []string{"xz -c", "bzip2 -c", "zstd -c", "lz4 -c"} {
		t.Run(program, func(t *testing.T) {
			packed, err := exec.Command("sh", "-c", program+" "+file).Output()
			if err != nil {
				t.Fatal(err)
			}
			flipped(t, packed, want)
		})
	}
	// A qcow2 has no checksums, so any outcome is right, provided that the import ends in an image or an
	// error and leaves nothing else.
	t.Run("qcow2", func(t *testing.T) {
		q := filepath.Join(dir, "disk.qcow2")
		qemuImg(t, "convert", "-c", "-f", "raw", "-O", "qcow2", file, q)
		packed, err := os.ReadFile(q)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, t.TempDir())
		for i := range 60 {
			at := i * 110 / 60 // the header first,
			if i >= 30 {
				at = (i - 30) * len(packed) / 30 // then everything
			}
			changed := bytes.Clone(packed)
			changed[at] ^= 1 << (i % 8)
			_, _ = s.Import(t.Context(), bytes.NewReader(changed), ImportOptions{
				Force: true, Name: "x", Format: "qcow2",
			})
		}
		for _, name := range visible(t, s) {
			if strings.HasPrefix(name, tempPrefix) {
				t.Errorf("%s was left", name)
			}
		}
	})
	t.Run("16 TiB in a qcow2", func(t *testing.T) {
		q := filepath.Join(dir, "huge.qcow2")
		qemuImg(t, "create", "-q", "-f", "qcow2", q, "16T")
		packed, err := os.ReadFile(q)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, packed, "virtual size")
	})
	t.Run("900 GiB of nothing in a qcow2", func(t *testing.T) {
		q := filepath.Join(dir, "empty.qcow2")
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", q, "900G")
		packed, err := os.ReadFile(q)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(packed)) < 900<<30/maxRatio {
			refused(t, packed, "an empty disk")
		}
	})
}

func TestBombs(t *testing.T) {
	if err := checkRatio(1<<40, 200<<20); err != nil {
		t.Errorf("1 TiB from 200 MiB: %v, want nil", err)
	}
	if err := checkRatio(ratioFrom, 1); err != nil {
		t.Errorf("%d bytes from one: %v, want nil", int64(ratioFrom), err)
	}
	if err := checkRatio(1<<40, 30<<20); err == nil || !strings.Contains(err.Error(), "keep us busy") {
		t.Errorf("1 TiB from 30 MiB: %v, want a refusal", err)
	}

	// The store refuses a sparse file of 16 TiB by its announced size, without reading it.
	s := open(t, t.TempDir())
	src := &zeros{}
	_, err := s.Import(t.Context(), src, ImportOptions{Force: true, Name: "x", Size: 16 << 40})
	if err == nil || !strings.Contains(err.Error(), "the source is of 17592186044416 bytes") ||
		src.n > 16<<20 {
		t.Errorf("Import(16 TiB) = %v after %d bytes, want a refusal at once", err, src.n)
	}

	// It stops one without an announced size on the way.
	in := &intake{}
	in.read.Store(300 << 10) // the source that zstd needs for 9 GiB of zeros
	next, buf, total := streamed(bufio.NewReader(&zeros{}), in), make([]byte, images.ChunkSize), 0
	for err = nil; err == nil && total < 9<<30; total += len(buf) {
		_, _, err = next(buf)
	}
	if err == nil || !strings.Contains(err.Error(), "keep us busy") {
		t.Errorf("%d bytes out of %d: %v, want a refusal", total, in.read.Load(), err)
	}
}

// zeros is a source that does not end.
type zeros struct{ n int64 }

func (z *zeros) Read(b []byte) (int, error) {
	clear(b)
	z.n += int64(len(b))
	return len(b), nil
}

// A full disk leaves no half image and gives an error. The store works on when there is room again.
func TestFullDisk(t *testing.T) {
	testnet.Need(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := open(t, dir)
	kept := add(t, s, "kept", disk(2*images.ChunkSize, 1))
	noise := disk(64<<20, 2)[:16<<20] // random
	for name, src := range map[string][]byte{"raw": bytes.Repeat(noise, 3), "qcow2": bigQcow2(30 << 20)} {
		_, err := s.Import(t.Context(), bytes.NewReader(src), ImportOptions{Force: true, Name: name})
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(fmt.Sprint(err), "nothing was kept") {
			t.Errorf("%s: Import = %v, want that the disk is full and nothing was kept", name, err)
		}
		if got := visible(t, s); len(got) != 1 {
			t.Errorf("%s: the store holds %v, want the image of before", name, got)
		}
	}
	if v := verified(t, s, kept.ID); v.Damaged != 0 {
		t.Errorf("the image of before: %+v", v)
	}
	add(t, s, "later", disk(2*images.ChunkSize, 3))
}

// bigQcow2 is a good header and n bytes behind it.
func bigQcow2(n int) []byte {
	h := header()
	binary.BigEndian.PutUint64(h[24:], 1<<30)
	return append(h, make([]byte, n)...)
}

// Unpacking any stream ends in an error or in bytes.
func FuzzDecompress(f *testing.F) {
	src := disk(2000, 1)
	f.Add(gzipped(f, src))
	f.Add(zstded(f, src))
	f.Add(lz4ed(f, src))
	f.Add([]byte("BZh91AY&SY\x00"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		_ = guarded(func() error {
			r, done, err := decompress(bytes.NewReader(packed))
			if err != nil {
				return err
			}
			defer done()
			_, err = io.Copy(io.Discard, io.LimitReader(r, 4<<20))
			return err
		})
	})
}
