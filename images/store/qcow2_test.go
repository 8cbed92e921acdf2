package store

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
)

func TestQcow2(t *testing.T) {
	testnet.Need(t, "qemu-img", "zstd")
	dir := t.TempDir()
	rawFile := filepath.Join(dir, "disk.raw")
	src := disk(5*images.ChunkSize+512*3, 1)
	// Something that compresses, so that there are compressed clusters.
	copy(src[2*images.ChunkSize:], bytes.Repeat([]byte("pxectl "), 100000))
	if err := os.WriteFile(rawFile, src, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string]string{
		"plain":            "",
		"version 2":        "-o compat=0.10",
		"deflate":          "-c",
		"zstd":             "-c -o compression_type=zstd",
		"small clusters":   "-o cluster_size=512",
		"large clusters":   "-c -o cluster_size=2M",
		"preallocated":     "-o preallocation=metadata",
		"lazy refcounts":   "-o lazy_refcounts=on",
		"extended headers": "-o refcount_bits=1",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk.qcow2")
			qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"},
				strings.Fields(args)...), rawFile, file)...)
			packed, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range [][]byte{packed, gzipped(t, packed)} {
				s := open(t, t.TempDir())
				info := add(t, s, "x", in)
				if got := readBack(t, s, info.ID); !bytes.Equal(got, src) {
					t.Errorf("reads back as %d bytes that differ from the %d imported", len(got), len(src))
				}
				out, err := exec.Command("zstd", "-dc", s.DataPath(info.ID)).Output()
				if err != nil || !bytes.Equal(out, src) {
					t.Errorf("zstd -dc gives %d bytes (%v), want the raw image of %d", len(out), err,
						len(src))
				}
				if got := visible(t, s); len(got) != 1 {
					t.Errorf("the store holds %v, want the image only", got)
				}
			}
			refused(t, packed[:len(packed)/3], "qcow2")
		})
	}

	t.Run("backing file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "overlay.qcow2")
		qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", rawFile, file)
		packed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, packed, "backing file", "qemu-img convert")
	})
	t.Run("external data", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "external.qcow2")
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "data"), file, "10M")
		packed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, packed, "another file")
	})
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

// header is the header of an ordinary qcow2 of 1 GiB in 64 KiB clusters.
func header() []byte {
	h := make([]byte, peekSize)
	be := binary.BigEndian
	copy(h, "QFI\xfb")
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], 16)
	be.PutUint64(h[24:], 1<<30)
	be.PutUint32(h[36:], 2)
	be.PutUint64(h[40:], 3<<16)
	be.PutUint32(h[96:], 4)
	be.PutUint32(h[100:], 112)
	return h
}

func TestQcow2HeaderRefuses(t *testing.T) {
	be := binary.BigEndian
	if _, err := checkQcow2(header()); err != nil {
		t.Fatalf("an ordinary header: %v", err)
	}
	tests := []struct {
		name   string
		change func(h []byte)
		want   string
	}{
		{"version 4", func(h []byte) { be.PutUint32(h[4:], 4) }, "version 4"},
		{"backing file", func(h []byte) { be.PutUint64(h[8:], 512) }, "backing file"},
		{"encrypted", func(h []byte) { be.PutUint32(h[32:], 2) }, "encrypted"},
		{"tiny clusters", func(h []byte) { be.PutUint32(h[20:], 8) }, "cluster_bits 8"},
		{"huge clusters", func(h []byte) { be.PutUint32(h[20:], 63) }, "cluster_bits 63"},
		{"no size", func(h []byte) { be.PutUint64(h[24:], 0) }, "virtual size 0"},
		{"absurd size", func(h []byte) { be.PutUint64(h[24:], 1<<62) }, "virtual size"},
		{"L1 too short", func(h []byte) { be.PutUint32(h[36:], 1) }, "L1 table of 1"},
		{"L1 of 32 GiB", func(h []byte) { be.PutUint32(h[36:], 1<<32-1) }, "L1 table of 4294967295"},
		{"L1 nowhere", func(h []byte) { be.PutUint64(h[40:], 1<<63) }, "L1 table at"},
		{"dirty", func(h []byte) { h[79] = 1 }, "dirty"},
		{"corrupt", func(h []byte) { h[79] = 2 }, "corrupt"},
		{"external data", func(h []byte) { h[79] = 4 }, "another file"},
		{"extended L2", func(h []byte) { h[79] = 16 }, "extended L2"},
		{"unknown bit", func(h []byte) { h[72] = 0x80 }, "0x8000000000000000"},
		{"unknown compression", func(h []byte) { h[79] = 8; h[104] = 9 }, "compression type 9"},
		{"compression without its bit", func(h []byte) { h[104] = 1 }, "without the feature bit"},
		{"endless header", func(h []byte) { be.PutUint32(h[100:], 1<<31) }, "header length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := header()
			tt.change(h)
			if _, err := checkQcow2(h); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("checkQcow2 = %v, want an error with %q", err, tt.want)
			}
			refused(t, h, tt.want)
		})
	}
	refused(t, header(), "cut off")
	refused(t, header()[:80], "cut off")
}

// Reading any small qcow2 ends, in an error or in its bytes.
func FuzzQcow2(f *testing.F) {
	f.Add(header())
	small := append(header(), make([]byte, 4<<9)...)
	be := binary.BigEndian
	be.PutUint32(small[20:], 9) // 512-byte clusters: L1 in the second, L2 in the third, data in the fourth
	be.PutUint64(small[24:], 2048)
	be.PutUint32(small[36:], 1)
	be.PutUint64(small[40:], 512)
	be.PutUint64(small[512:], 1<<63|1024)
	be.PutUint64(small[1024:], 1<<63|1536)
	be.PutUint64(small[1032:], 1<<62|1536)
	f.Add(small)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := checkQcow2(data)
		if err != nil || h.size > 1<<24 {
			return
		}
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		q, err := openQcow2(file)
		if err != nil {
			return
		}
		next, buf := q.inOrder(), make([]byte, images.ChunkSize)
		for range h.size/images.ChunkSize + 2 {
			n, fill, err := next(buf)
			if err != nil {
				return
			}
			if _, err := fill(buf[:n]); err != nil {
				return
			}
		}
		t.Fatal("the image does not end")
	})
}
