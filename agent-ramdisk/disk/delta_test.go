package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"

	"github.com/pxectl/pxectl/internal/parttable"
	"github.com/pxectl/pxectl/internal/testnet"
)

// plainImage is an image without a partition table. A chunk whose letter is '.' is zero.
func plainImage(chunks string) []byte {
	var raw []byte
	for i, c := range []byte(chunks) {
		chunk := make([]byte, images.ChunkSize)
		if c != '.' {
			for n := 0; n < len(chunk); n += 512 {
				chunk[n], chunk[n+1], chunk[n+2] = c, byte(i), byte(n>>9)
			}
		}
		raw = append(raw, chunk...)
	}
	return raw
}

func onDisk(t *testing.T, raw []byte, size int64) *Device {
	t.Helper()
	path := sparse(t, size)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func holds(t *testing.T, d *Device, raw []byte) bool {
	t.Helper()
	got := make([]byte, len(raw))
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(got, raw)
}

func TestDelta(t *testing.T) {
	testnet.Long(t)
	const size = 12 * images.ChunkSize
	raw := plainImage("aab..cd.ef")
	m, data := pack(t, raw)
	for _, tt := range []struct {
		name, disk            string
		kept, fetched, zeroed int
	}{
		// The first and the last chunk hold the labels that are cleared first. Here the last one lies before
		// the disk's last MiB.
		{"the same", "aab..cd.ef", 9, 1, 0},
		{"two differ", "aaX..cd.Yf", 7, 3, 0},
		{"zeros to be made", "aabXXcd.ef", 7, 1, 2},
		{"interrupted", "aab..c....", 6, 4, 0},
		{"another system", "XXXXXXXXXX", 0, 7, 3},
		{"empty", "..........", 3, 7, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := onDisk(t, plainImage(tt.disk), size)
			w, err := d.Write(context.Background(), Write{Manifest: m, Fetch: from(data), Delta: true})
			if err != nil {
				t.Fatal(err)
			}
			if w.Kept != tt.kept || w.Fetched != tt.fetched || w.Zeroed != tt.zeroed || w.ReadBack != 10 ||
				w.Mode != inventory.ModeDelta {
				t.Errorf("Write = %+v, want %d kept, %d fetched, %d zeroed, all read back", *w, tt.kept,
					tt.fetched, tt.zeroed)
			}
			if !holds(t, d, raw) {
				t.Error("the disk does not hold the image")
			}
		})
	}
}

func TestResembles(t *testing.T) {
	testnet.Long(t)
	m, _ := pack(t, plainImage("aab..cd.ef"))
	one, _ := pack(t, plainImage("a"))
	for _, tt := range []struct {
		disk string
		m    *images.Manifest
		want bool
	}{
		{"aab..cd.ef", m, true},
		{"aab.......", m, true},
		{"aa........", m, false}, // one chunk of six may be chance
		{"Xab..XX.XX", m, true},
		{"XXXXXXXXXX", m, false},
		{"..........", m, false},
		{"a", one, false},
	} {
		if got := onDisk(t, plainImage(tt.disk), 12*images.ChunkSize).Resembles(tt.m); got != tt.want {
			t.Errorf("Resembles with %q on the disk = %v, want %v", tt.disk, got, tt.want)
		}
	}
}

// TestPowerCut: whenever a write ends, the disk has either no labels or the whole image.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	raw := plainImage("abcdefgh")
	m, data := pack(t, raw)
	const size = 8 * images.ChunkSize // the image ends with the disk: a backup GPT would count
	for _, delta := range []bool{false, true} {
		d := onDisk(t, plainImage("aXcXeXgh"), size)
		var mu sync.Mutex
		seen := 0
		fetch := func(ctx context.Context, dst []byte, offset, length int64) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			edge := make([]byte, 1<<20)
			if _, err := d.ReadAt(edge, 0); err != nil || !images.IsZero(edge) {
				t.Errorf("delta %v: labels at the start while a chunk is fetched (%v)", delta, err)
			}
			last := m.Chunks[len(m.Chunks)-1]
			if _, err := d.ReadAt(edge, size-1<<20); (err != nil || !images.IsZero(edge)) && offset != 0 {
				t.Errorf("delta %v: labels at the end while chunk at %d is fetched (%v)", delta, offset, err)
			}
			if offset == last.Offset && seen < 3 {
				t.Errorf("delta %v: the last chunk is fetched after %d others", delta, seen)
			}
			seen++
			return from(data)(ctx, dst, offset, length)
		}
		if _, err := d.Write(context.Background(),
			Write{Manifest: m, Fetch: fetch, Delta: delta}); err != nil {
			t.Fatal(err)
		}
		if !holds(t, d, raw) {
			t.Errorf("delta %v: the disk does not hold the image", delta)
		}
	}
}

// TestResume: an interrupted write goes on after a reboot. Prepare leaves the chunks on the disk, and only
// the rest is fetched.
func TestResume(t *testing.T) {
	t.Parallel()
	raw := plainImage("abcdefghijklmnop")
	m, data := pack(t, raw)
	d := onDisk(t, nil, 20*images.ChunkSize)
	cut := errors.New("power cut")
	_, err := d.Write(context.Background(), Write{
		Manifest: m, Fetch: func(ctx context.Context, dst []byte, offset, length int64) ([]byte, error) {
			if offset > m.Chunks[11].Offset {
				return nil, cut
			}
			return from(data)(ctx, dst, offset, length)
		},
	})
	if !errors.Is(err, cut) {
		t.Fatal(err)
	}
	if !d.Resembles(m) {
		t.Fatal("Resembles = false after most of a write")
	}
	if _, err := d.Prepare(m.RawSize); err != nil {
		t.Fatal(err)
	}
	w, err := d.Write(context.Background(), Write{Manifest: m, Fetch: from(data), Delta: true})
	if err != nil {
		t.Fatal(err)
	}
	if w.Kept < 6 || w.Kept+w.Fetched != 16 || !holds(t, d, raw) {
		t.Errorf("Write after it = %+v, want it to keep what was written", *w)
	}
}

// TestPrepareKeeps: old labels outside of the kept range are cleared.
func TestPrepareKeeps(t *testing.T) {
	t.Parallel()
	need(t, "sgdisk")
	path := sparse(t, 200<<20)
	run(t, "sgdisk", "-n", "1:2048:+50M", "-n", "2:0:0", path)
	d := open(t, path)
	for _, off := range []int64{20 << 20, 50<<20 + 900<<10} {
		if _, err := d.WriteAt([]byte("XFSBkept?"), off); err != nil {
			t.Fatal(err)
		}
	}
	parts := parttable.Read(d, d.Size, d.Sector).Partitions
	if _, err := d.WriteAt([]byte("XFSB"), parts[1].Offset); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prepare(32 << 20); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	for off, want := range map[int64]string{
		20 << 20: "XFSB", 50<<20 + 900<<10: "\x00\x00\x00\x00",
		parts[1].Offset: "\x00\x00\x00\x00",
	} {
		if _, err := d.ReadAt(got, off); err != nil || string(got) != want {
			t.Errorf("at %d MiB: %q, %v; want %q", off>>20, got, err, want)
		}
	}
	if found := Probe(d, d.Size, d.Sector); len(found) > 0 {
		t.Errorf("Probe = %v, want nothing", found)
	}
}

func TestHashOnly(t *testing.T) {
	raw := plainImage("ab.c")
	m, data := pack(t, raw)
	d := onDisk(t, nil, 5*images.ChunkSize)
	w, err := d.Write(context.Background(), Write{
		Manifest: m, Fetch: from(data), Zeros: true, HashOnly: true,
	})
	if err != nil || w.ReadBack != 0 || w.Fetched != 3 || w.Zeroed != 1 || !holds(t, d, raw) {
		t.Errorf("Write = %+v, %v", w, err)
	}
}

// A failing medium cannot read, or cannot write, one place.
type failing struct {
	blockdev.Medium
	read, write int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if f.read >= off && f.read < off+int64(len(p)) {
		return 0, &os.PathError{Op: "read", Path: "/dev/sdx", Err: unix.EIO}
	}
	return f.Medium.ReadAt(p, off)
}

func (f failing) WriteAt(p []byte, off int64) (int, error) {
	if f.write >= off && f.write < off+int64(len(p)) {
		return 0, &os.PathError{Op: "write", Path: "/dev/sdx", Err: unix.EIO}
	}
	return f.Medium.WriteAt(p, off)
}

func TestBrokenDisk(t *testing.T) {
	testnet.Long(t)
	raw := plainImage("aab.cdef")
	m, data := pack(t, raw)
	const place, never = 5*images.ChunkSize + 4096, -1
	for _, tt := range []struct {
		name        string
		read, write int64
		delta       bool
		want        string
	}{
		{"write", never, place, false, "write chunk 5"},
		{"write zeros", never, 3*images.ChunkSize + 4096, false, "write zeros"},
		{"read back", place, never, false, "read chunk 5 back"},
		{"delta, unreadable before and after", place, never, true, "read chunk 5 back"},
		{"delta, equal and unwritable", never, place, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := raw
			if !tt.delta {
				old = plainImage("XXXXXXXX")
			}
			d := onDisk(t, old, 9*images.ChunkSize)
			d.Direct = failing{d.Direct, tt.read, tt.write}
			_, err := d.Write(context.Background(), Write{Manifest: m, Fetch: from(data), Delta: tt.delta})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write = %v, want an input/output error with %q", err, tt.want)
			}
			edge := make([]byte, 1<<20)
			for _, off := range []int64{0, d.Size - 1<<20} {
				if _, err := d.ReadAt(edge, off); err != nil || !images.IsZero(edge) {
					t.Errorf("labels at %d are left (%v)", off, err)
				}
			}
		})
	}
}
