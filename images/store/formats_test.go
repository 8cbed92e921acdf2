package store

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
)

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(b, nil)
}

func lz4ed(t testing.TB, b []byte, options ...lz4.Option) []byte {
	t.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// refused imports src, and expects an error with each of want and an unchanged store.
func refused(t *testing.T, src []byte, want ...string) {
	t.Helper()
	s := open(t, t.TempDir())
	_, err := s.Import(t.Context(), bytes.NewReader(src), ImportOptions{Force: true, Name: "x"})
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("Import = %v, want an error with %q", err, w)
		}
	}
	if got := visible(t, s); len(got) != 0 {
		t.Errorf("the store holds %v, want nothing", got)
	}
}

func TestCompressedSources(t *testing.T) {
	src := disk(images.ChunkSize+512, 1)
	for name, packed := range map[string][]byte{
		"gzip": gzipped(t, src), "zstd": zstded(t, src),
		"lz4": lz4ed(t, src),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if got := readBack(t, s, add(t, s, "x", packed).ID); !bytes.Equal(got, src) {
				t.Errorf("reads back as %d bytes that differ from the %d imported", len(got), len(src))
			}
			for _, cut := range []int{len(packed) - 1, len(packed) / 2} {
				refused(t, packed[:cut], name+" stream: cut off before its end")
			}
			changed := bytes.Clone(packed)
			changed[len(changed)/2] ^= 0x10
			refused(t, changed, name+" stream")
		})
	}
	refused(t, gzipped(t, zstded(t, src)), "zstd inside gzip")
	refused(t, gzipped(t, nil), "nothing in it")
	refused(t, []byte("\x1f\x8b"), "gzip stream: cut off")
	refused(t, []byte("\xfd7zXZ\x00garbage"), "xz stream")
}

func TestProgramsCompress(t *testing.T) {
	testnet.Need(t, "xz", "bzip2", "gzip", "zstd", "lz4")
	dir := t.TempDir()
	src := disk(2*images.ChunkSize+512, 1)
	if err := os.WriteFile(filepath.Join(dir, "disk"), src, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{
		"xz -9e -c", "xz -T2 -c", "bzip2 -c", "gzip -c", "zstd -c -19 --long=27",
		"lz4 -c", "lz4 -9 -BD -BX -c", "lz4 -B4 --no-frame-crc -c",
	} {
		t.Run(program, func(t *testing.T) {
			packed, err := exec.Command("sh", "-c", program+" "+filepath.Join(dir, "disk")).Output()
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, t.TempDir())
			if got := readBack(t, s, add(t, s, "x", packed).ID); !bytes.Equal(got, src) {
				t.Errorf("reads back as %d bytes that differ from the %d imported", len(got), len(src))
			}
			refused(t, packed[:len(packed)-1], "stream: cut off before its end")
			refused(t, packed[:len(packed)*2/3], "stream: cut off before its end")
		})
	}
}

const importInto = "PXECTL_TEST_IMPORT_INTO"

// TestKilledImport kills a process in the middle of an import and opens its store again.
func TestKilledImport(t *testing.T) {
	if dir := os.Getenv(importInto); dir != "" {
		s := open(t, dir)
		_, err := s.Import(t.Context(), os.Stdin, ImportOptions{Force: true, Name: "x"})
		t.Fatalf("the import ended: %v", err)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledImport$")
	cmd.Env = append(os.Environ(), importInto+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Never closed while the process lives: the import waits for more.
	if _, err := stdin.Write(disk(6*images.ChunkSize, 1)); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		half, _ := filepath.Glob(filepath.Join(dir, "tmp-*", dataFile))
		if len(half) == 1 {
			if st, err := os.Stat(half[0]); err == nil && st.Size() > images.ChunkSize {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Error("no half import appeared")
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if got, _ := filepath.Glob(filepath.Join(dir, "tmp-*")); len(got) != 1 {
		t.Errorf("the killed process left %v, want its half import", got)
	}
	s := open(t, dir)
	if got := visible(t, s); len(got) != 0 || len(s.List()) != 0 {
		t.Errorf("opened again the store holds %v, want nothing", got)
	}
}

// TestBehindTheStream: bytes behind a compressed image are padding, a signature, or an error that counts
// them.
func TestBehindTheStream(t *testing.T) {
	testnet.Need(t, "xz", "bzip2")
	src := disk(images.ChunkSize+512, 1)
	pack := func(program string) []byte {
		t.Helper()
		cmd := exec.Command(program, "-c")
		cmd.Stdin = bytes.NewReader(src)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, packed := range map[string][]byte{
		"gzip": gzipped(t, src), "xz": pack("xz"),
		"bzip2": pack("bzip2"),
	} {
		t.Run(name, func(t *testing.T) {
			takes := func(what string, source []byte) {
				t.Helper()
				s := open(t, t.TempDir())
				if got := readBack(t, s, add(t, s, "x", source).ID); !bytes.Equal(got, src) {
					t.Errorf("%s: reads back as %d bytes that differ from the %d imported", what, len(got),
						len(src))
				}
			}
			takes("zeros", slices.Concat(packed, make([]byte, 100_000)))
			takes("a signature",
				slices.Concat(packed, []byte("signature of somebody"), []byte("FWx0"), make([]byte, 12)))
			refused(t, slices.Concat(packed, []byte("something else")),
				name+" stream: it is whole, but 14 bytes that are not part of it", "head -c -14")
			refused(t, slices.Concat(packed, bytes.Repeat([]byte("x"), 200_000)),
				"200000 bytes that are not part of it")
			two := open(t, t.TempDir())
			if got := readBack(t, two, add(t, two, "x", slices.Concat(packed, packed)).ID); !bytes.Equal(got,
				slices.Concat(src, src)) {
				t.Errorf("two streams read back as %d bytes, want both images", len(got))
			}
			refused(t, packed[:len(packed)-3], name+" stream: cut off")
		})
	}
}

func TestSkippableFrames(t *testing.T) {
	testnet.Long(t)
	src := disk(images.ChunkSize+512, 1)
	for nibble := range byte(16) {
		frame := []byte{0x50 | nibble, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5}
		for name, packed := range map[string][]byte{"zstd": zstded(t, src), "lz4": lz4ed(t, src)} {
			s := open(t, t.TempDir())
			if got := readBack(t, s,
				add(t, s, "x", slices.Concat(frame, frame, packed)).ID); !bytes.Equal(got, src) {
				t.Errorf("%s behind a frame %#x reads back as %d bytes that differ from the %d imported",
					name, frame[0], len(got), len(src))
			}
		}
	}
	refused(t, []byte{0x50, 0x2a, 0x4d, 0x18, 255, 255, 255, 255, 1}, "skippable frame: cut off")
}

func TestFixedVHD(t *testing.T) {
	testnet.Need(t, "qemu-img")
	for _, size := range []int{images.ChunkSize - 512, images.ChunkSize, 2*images.ChunkSize + 1024} {
		dir := t.TempDir()
		src := disk(size, 1)
		if err := os.WriteFile(filepath.Join(dir, "raw"), src, 0o644); err != nil {
			t.Fatal(err)
		}
		run := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o",
			"subformat=fixed,force_size=on", filepath.Join(dir, "raw"), filepath.Join(dir, "vhd"))
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		vhd, err := os.ReadFile(filepath.Join(dir, "vhd"))
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, t.TempDir())
		if got := readBack(t, s, add(t, s, "x", vhd).ID); !bytes.Equal(got, src) {
			t.Errorf("a VHD of %d bytes reads back as %d bytes, want the %d of the disk", len(vhd), len(got),
				len(src))
		}
		vhd[len(vhd)-footerSize+100] ^= 1 // its checksum is wrong now, so the bytes are data
		if got := readBack(t, s, add(t, s, "y", vhd).ID); !bytes.Equal(got, vhd) {
			t.Errorf("what only looks like a footer was dropped: %d bytes, want %d", len(got), len(vhd))
		}
	}
}

// TestNotDiskImages: an error names the kind of a file by its first bytes, and says how to get an image from
// it.
func TestNotDiskImages(t *testing.T) {
	testnet.Need(t, "qemu-img", "tar", "xz", "zstd")
	dir := t.TempDir()
	src := disk(images.ChunkSize, 1)
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, src, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, make, want string }{
		{"qcow 1", "qemu-img convert -f raw -O qcow $R out", "qcow image of version 1"},
		{"QED", "qemu-img convert -f raw -O qed $R out", "QED image"},
		{"Parallels", "qemu-img convert -f raw -O parallels $R out", "Parallels image"},
		{"growing VHD", "qemu-img convert -f raw -O vpc $R out", "VHD image"},
		{"OVA", "echo x > a.ovf; cp $R a-disk1.vmdk; tar --format=ustar -cf out a.ovf a-disk1.vmdk", "OVA"},
		{"tar", "cp $R disk.raw; tar --format=ustar -cf out disk.raw", "tar archive"},
		{"lzma", "xz --format=lzma -c $R > out", "an lzma file"},
		{"a window too large", "cat $R | zstd -q -1 --long=31 -c > out", "zstd -d --long=31"},
		{"a dictionary too large", "xz --lzma2=dict=128MiB -c $R > out", "xz -d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			work := t.TempDir()
			cmd := exec.Command("sh", "-ec", c.make)
			cmd.Dir, cmd.Env = work, append(os.Environ(), "R="+raw)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			source, err := os.ReadFile(filepath.Join(work, "out"))
			if err != nil {
				t.Fatal(err)
			}
			refused(t, source, c.want)
		})
	}
}
