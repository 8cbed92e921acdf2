package agent

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// withImage gives the appliance an image of three chunks, one of them zero, and the agent a disk.
func withImage(t *testing.T, a *appliance, ag *Agent) (inventory.Order, string) {
	t.Helper()
	raw := make([]byte, 2*images.ChunkSize+1<<20)
	for i := range images.ChunkSize {
		raw[i] = byte(i * i >> 7)
	}
	raw[len(raw)-1] = 1
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &images.Manifest{
		Format: images.Format, Name: "test", RawSize: int64(len(raw)), SectorSize: 512,
		ChunkSize: images.ChunkSize,
		HashName:  images.HashName,
	}
	for off := 0; off < len(raw); off += images.ChunkSize {
		chunk := raw[off:min(off+images.ChunkSize, len(raw))]
		frame := enc.EncodeAll(chunk, nil)
		m.Chunks = append(m.Chunks, images.Chunk{
			Offset: int64(len(a.data)), Length: int64(len(frame)),
			Sum: images.HashChunk(frame), Hash: images.HashChunk(chunk), Zero: images.IsZero(chunk),
		})
		a.data = append(a.data, frame...)
	}
	a.data = append(a.data, images.SeekTable(m.Chunks)...)
	m.DataSize = int64(len(a.data))
	if a.manifest, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	ag.Dev = t.TempDir()
	path := filepath.Join(ag.Dev, "vda")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d := inventory.Disk{Name: "vda", Serial: "S1", Bytes: size}
	ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
	id := d.Identity()
	return inventory.Order{
		ID: "w", Do: inventory.DoWriteImage, Target: &id,
		Image: &inventory.OrderImage{ID: images.ID(a.manifest), URL: a.plain.URL + "/disk.zst"},
	}, path
}

func TestWriteImage(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	order, path := withImage(t, a, ag)
	prepare := inventory.Order{ID: "p", Do: inventory.DoPrepareDisk, Target: order.Target}
	// The boot plane cuts three answers in the middle.
	a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.URL.Path != "/disk.zst" || n > 3 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		return hangUp(w)
	}
	a.orders = []inventory.Order{prepare, order, reboot}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	w := a.results[1].Written
	if a.results[0].Error != "" || w == nil || w.Chunks != 3 || w.ReadBack != 3 || w.Sent == 0 {
		t.Fatalf("results = %+v", a.results)
	}
	a.wantOn(t, path)
}

// wantOn compares a disk with the image.
func (a *appliance) wantOn(t *testing.T, path string) {
	t.Helper()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := images.Parse(a.manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Chunks {
		if err := c.Verify(disk[c.RawOffset:][:c.RawLength]); err != nil {
			t.Errorf("the disk does not hold the image: %v", err)
		}
	}
}

func TestWriteImageFails(t *testing.T) {
	testnet.Long(t)
	for _, tt := range []struct {
		name, want, hint string
		spoil            func(*appliance, *inventory.Order)
	}{
		{"corrupted chunk", "chunk 0", "", func(a *appliance, _ *inventory.Order) { a.data[100] ^= 1 }},
		{"other manifest", "its sha256 is", "", func(_ *appliance, o *inventory.Order) {
			o.Image = &inventory.OrderImage{ID: strings.Repeat("0", 64), URL: o.Image.URL}
		}},
		{"image is gone", "404", "", func(_ *appliance, o *inventory.Order) {
			o.Image = &inventory.OrderImage{ID: o.Image.ID, URL: o.Image.URL + "x"}
		}},
		{"disk is gone", "not there any more", "inspect", func(_ *appliance, o *inventory.Order) {
			o.Target = &inventory.DiskIdentity{Name: "vda", Serial: "S2", Bytes: o.Target.Bytes}
		}},
		{"no disk named", "names no disk", "", func(_ *appliance, o *inventory.Order) { o.Target = nil }},
		{
			"unknown mode", "unknown mode", "older than the appliance",
			func(_ *appliance, o *inventory.Order) { o.Mode = "sideways" },
		},
		{
			"unknown proof", "unknown way to verify", "older than the appliance",
			func(_ *appliance, o *inventory.Order) { o.Verify = "by eye" },
		},
		{
			"unknown order", "unknown order", "older than the appliance",
			func(_ *appliance, o *inventory.Order) { o.Do = "juggle" },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			order, _ := withImage(t, a, ag)
			tt.spoil(a, &order)
			a.orders = []inventory.Order{order, reboot}
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			r := a.results[0]
			if !strings.Contains(r.Error, tt.want) || !strings.Contains(r.Hint, tt.hint) ||
				!strings.Contains(r.Log, "failed after") {
				t.Errorf("result = %+v, want an error with %q, a hint with %q and the log", r, tt.want,
					tt.hint)
			}
		})
	}
}

// TestModes: the mode decides whether a write uses the content of the disk, and whether prepare-disk leaves
// it.
func TestModes(t *testing.T) {
	testnet.Long(t)
	for _, tt := range []struct {
		mode          string
		kept, fetched int
	}{
		{inventory.ModeAuto, 2, 1}, // the first chunk has the labels
		{"", 2, 1},
		{inventory.ModeDelta, 2, 1},
		{inventory.ModeFull, 0, 2},
	} {
		t.Run("mode "+tt.mode, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			write, path := withImage(t, a, ag)
			// The appliance has just restarted, and does not know its images yet.
			a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
				refuse := r.URL.Path == "/disk.zst" && n < 3
				if refuse {
					w.WriteHeader(http.StatusNotFound)
				}
				return refuse
			}
			first := write
			first.ID = "first"
			write.Mode = tt.mode
			prepare := inventory.Order{
				ID: "p", Do: inventory.DoPrepareDisk, Target: write.Target, Image: write.Image, Mode: tt.mode,
			}
			a.orders = []inventory.Order{first, prepare, write, reboot}
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			w := a.results[2].Written
			if a.results[0].Error != "" || w == nil || w.Kept != tt.kept || w.Fetched != tt.fetched ||
				w.ReadBack != 3 {
				t.Fatalf("results = %+v, written %+v; want %d chunks kept and %d fetched", a.results, w,
					tt.kept, tt.fetched)
			}
			a.wantOn(t, path)
		})
	}
}

// TestPrepareRefuses: prepare-disk refuses an image that does not fit before it clears anything.
func TestPrepareRefuses(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	write, path := withImage(t, a, ag)
	text := []byte("an old system")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	d := inventory.Disk{Name: "vda", Serial: "S1", Bytes: 4 << 20}
	ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
	id := d.Identity()
	a.orders = []inventory.Order{
		{ID: "p", Do: inventory.DoPrepareDisk, Target: &id, Image: write.Image}, reboot,
	}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); !strings.Contains(a.results[0].Error, "image test needs") ||
		err != nil || string(got[:len(text)]) != string(text) {
		t.Errorf("result = %+v; the disk begins with %q", a.results[0], got[:len(text)])
	}
}

func TestCancelledOrder(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	order, _ := withImage(t, a, ag)
	a.orders = []inventory.Order{order, reboot}
	// The boot plane sends one chunk and then nothing. The first report of progress is answered with "gone".
	a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/progress"):
			w.WriteHeader(http.StatusGone)
			return true
		case r.URL.Path == "/disk.zst" && n > 1:
			return hangUp(w)
		}
		return false
	}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if r := a.results[0]; !strings.Contains(r.Error, "does not know or want this") {
		t.Errorf("result = %+v", r)
	}
}
