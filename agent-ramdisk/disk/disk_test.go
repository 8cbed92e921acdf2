package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// need skips a test when a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sparse makes a file in place of a disk.
func sparse(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// diskImage makes an image like a distribution's: GPT by sgdisk, two partitions and perhaps a seed partition.
func diskImage(t *testing.T, size int64, seed bool) []byte {
	t.Helper()
	path := sparse(t, size)
	args := []string{"-n", "1:2048:+1M", "-t", "1:ef02"}
	if seed {
		args = append(args, "-n", "2:0:+4M", "-t", "2:0700", "-c", "2:cidata")
	}
	run(t, "sgdisk", append(args, "-n", "4:0:0", "-t", "4:8300", "-c", "4:root", path)...)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A few bytes in the root partition, far apart, for full, partial and zero chunks.
	r := rand.New(rand.NewPCG(1, 2))
	for off := int64(7 << 20); off < size-(2<<20); off += 13 << 20 {
		for i := range int64(1 << 20) {
			raw[off+i] = byte(r.Uint32())
		}
	}
	return raw
}

// pack makes manifest and disk.zst of an image, in memory.
func pack(t *testing.T, raw []byte) (*images.Manifest, []byte) {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &images.Manifest{
		Format:     images.Format,
		Name:       "test",
		RawSize:    int64(len(raw)),
		SectorSize: 512,
		ChunkSize:  images.ChunkSize,
		HashName:   images.HashName,
	}
	var data []byte
	for chunk := range slices.Chunk(raw, images.ChunkSize) {
		frame := enc.EncodeAll(chunk, nil)
		m.Chunks = append(m.Chunks, images.Chunk{
			Offset: int64(len(data)), Length: int64(len(frame)),
			Sum: images.HashChunk(frame), Hash: images.HashChunk(chunk), Zero: images.IsZero(chunk),
		})
		data = append(data, frame...)
	}
	data = append(data, images.SeekTable(m.Chunks)...)
	m.DataSize = int64(len(data))
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = images.Parse(encoded); err != nil {
		t.Fatal(err)
	}
	return m, data
}

type fetch = func(ctx context.Context, dst []byte, offset, length int64) ([]byte, error)

func from(data []byte) fetch {
	return func(_ context.Context, dst []byte, offset, length int64) ([]byte, error) {
		return append(dst[:0], data[offset:offset+length]...), nil
	}
}

func open(t *testing.T, path string) *Device {
	t.Helper()
	d, err := OpenDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

var seed = inventory.Seed{
	MetaData: "instance-id: 1\n", UserData: []byte("#cloud-config\n"),
	VendorData: "#cloud-config\n{}\n", NetworkConfig: "version: 2\n",
}

// loopDevice attaches a file as a loop device with the given sector size.
func loopDevice(t *testing.T, path string, sector int) string {
	t.Helper()
	dev := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--direct-io=off", "--sector-size",
		fmt.Sprint(sector), path))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return dev
}

// TestDeploy does all the work on a disk, and other programs check it.
func TestDeploy(t *testing.T) {
	testnet.Long(t)
	need(t, "sgdisk", "mcopy", "blkid")
	for _, tt := range []struct {
		name       string
		loop, seed bool
		size       int64
	}{
		{name: "file", seed: true, size: 200 << 20},
		{name: "no seed partition", size: 200 << 20},
		{name: "odd size", seed: true, size: 200<<20 + 512*7},
		{name: "loop device", loop: true, seed: true, size: 200 << 20},
		{name: "loop device, no seed partition", loop: true, size: 200 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name != "file" {
				testnet.Need(t, "losetup")
			}
			raw := diskImage(t, 70<<20, tt.seed)
			m, data := pack(t, raw)
			path := sparse(t, tt.size)
			// An older, larger system whose backup GPT and labels must not survive.
			run(t, "sgdisk", "-n", "1:2048:+50M", "-n", "2:0:0", path)
			if f, err := os.OpenFile(path, os.O_WRONLY, 0); err != nil {
				t.Fatal(err)
			} else {
				_, err := f.WriteAt([]byte("XFSB"), 1<<20)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			dev := path
			if tt.loop {
				dev = loopDevice(t, path, 512)
			}
			d := open(t, dev)
			if got := Probe(d, d.Size, d.Sector); !slices.Equal(got, []string{"gpt", "xfs"}) {
				t.Fatalf("Probe of the old disk = %v, want [gpt xfs]", got)
			}
			p, err := d.Prepare(0)
			if err != nil {
				t.Fatal(err)
			}
			if p.Zeros != tt.loop { // a file cannot discard, a loop device on a sparse file can
				t.Errorf("Prepare = %+v, want Zeros %v", p, tt.loop)
			}
			var last inventory.Progress
			w, err := d.Write(context.Background(),
				Write{
					Manifest: m, Fetch: from(data), Zeros: p.Zeros,
					Progress: func(p inventory.Progress) { last = p },
				})
			if err != nil {
				t.Fatal(err)
			}
			if w.Chunks != len(m.Chunks) || w.ReadBack != len(m.Chunks) || w.Bytes != uint64(len(raw)) {
				t.Errorf("Write = %+v", w)
			}
			if last.Phase != "read-back" || last.Done != last.Total || last.Total != uint64(len(raw)) {
				t.Errorf("last progress = %+v", last)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got[:len(raw)], raw) {
				t.Fatal("the disk does not hold the image")
			}

			f, err := d.Finish(seed)
			if err != nil {
				t.Fatal(err)
			}
			again, err := d.Finish(seed)
			if err != nil {
				t.Fatalf("Finish again: %v", err)
			}
			if f.Partitions != again.Partitions || !slices.Equal(f.Ranges, again.Ranges) {
				t.Errorf("Finish again = %+v, want %+v", again, f)
			}
			if f.Partitions != 3 {
				t.Errorf("Finish = %+v, want 3 partitions", f)
			}
			if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v: %s", out)
			}
			if out := run(t, "sgdisk", "-p", path); !strings.Contains(out,
				fmt.Sprintf("last usable sector is %d", tt.size/512-34)) {
				t.Errorf("the table does not reach to the end of %d sectors: %s", tt.size/512, out)
			}
			checkSeed(t, path, f)
			checkRanges(t, path, raw, f)
		})
	}
}

func checkSeed(t *testing.T, path string, f *inventory.Finished) {
	t.Helper()
	s := f.Ranges[slices.IndexFunc(f.Ranges, func(r inventory.Range) bool { return r.Name == "seed" })]
	out := run(t, "blkid", "-p", "-O", fmt.Sprint(s.Offset), path)
	if !strings.Contains(out, `LABEL="cidata"`) {
		t.Errorf("blkid of the seed: %s", out)
	}
	for name, want := range map[string]string{
		"meta-data": seed.MetaData, "user-data": string(seed.UserData),
		"vendor-data": seed.VendorData, "network-config": seed.NetworkConfig,
	} {
		if got := run(t, "mcopy", "-i", fmt.Sprintf("%s@@%d", path, s.Offset), "::"+name, "-"); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// checkRanges checks that the disk equals the image outside of the named ranges.
func checkRanges(t *testing.T, path string, raw []byte, f *inventory.Finished) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, raw = got[:len(raw)], bytes.Clone(raw)
	for _, r := range f.Ranges {
		if end := min(int(r.Offset+r.Length), len(raw)); int(r.Offset) < end {
			copy(raw[r.Offset:end], got[r.Offset:end])
		}
	}
	if !bytes.Equal(got, raw) {
		t.Error("the disk differs from the image outside of the named ranges")
	}
}

func TestFourKSectors(t *testing.T) {
	testnet.Need(t, "losetup", "sgdisk", "mcopy", "blkid")
	raw := diskImage(t, 70<<20, true)
	m, data := pack(t, raw)
	d := open(t, loopDevice(t, sparse(t, 200<<20), 4096))
	if d.Sector != 4096 {
		t.Fatalf("sector size %d, want 4096", d.Sector)
	}
	if _, err := d.Prepare(0); err != nil {
		t.Fatal(err)
	}
	_, err := d.Write(context.Background(), Write{Manifest: m, Fetch: from(data)})
	if err == nil || !strings.Contains(err.Error(), "sectors of 4096 bytes, image test is made for 512") {
		t.Errorf("Write to a 4Kn disk = %v", err)
	}
}

func TestFinishRefuses(t *testing.T) {
	t.Parallel()
	need(t, "sgdisk")
	full := sparse(t, 70<<20)
	run(t, "sgdisk", "-n", "1:0:0", full)
	blank := sparse(t, 70<<20)
	for path, want := range map[string]string{
		full:  "no room for the seed",
		blank: "no partition table",
	} {
		if _, err := open(t, path).Finish(seed); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Finish = %v, want an error with %q", err, want)
		}
	}
}
