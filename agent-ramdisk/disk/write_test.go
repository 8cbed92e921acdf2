package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestBusyDisk(t *testing.T) {
	testnet.Need(t, "losetup", "mkfs.ext4", "mount")
	path := sparse(t, 64<<20)
	run(t, "mkfs.ext4", "-q", path)
	dev := loopDevice(t, path, 512)
	dir := t.TempDir()
	run(t, "mount", dev, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	if d, err := OpenDevice(dev); err == nil {
		_ = d.Close()
		t.Error("a mounted disk could be opened")
	} else if !strings.Contains(err.Error(), "in use") {
		t.Errorf("OpenDevice of a mounted disk = %v", err)
	}
}

func TestWriteFails(t *testing.T) {
	testnet.Long(t)
	need(t, "sgdisk")
	raw := diskImage(t, 70<<20, true)
	m, data := pack(t, raw)
	bad := m.Chunks[len(m.Chunks)/2]
	for bad.Zero {
		bad = m.Chunks[bad.Index-1]
	}
	spoil := func(times int) fetch {
		return func(_ context.Context, dst []byte, offset, length int64) ([]byte, error) {
			dst = append(dst[:0], data[offset:offset+length]...)
			if offset == bad.Offset && times > 0 {
				times--
				dst[length/2] ^= 1
			}
			return dst, nil
		}
	}
	canceled, cancel := context.WithCancel(context.Background())
	for _, tt := range []struct {
		name, want string
		ctx        context.Context
		fetch      fetch
		size       int64
	}{
		{"one chunk wrong once", "", nil, spoil(1), 100 << 20},
		{"one chunk wrong for ever", fmt.Sprintf("chunk %d", bad.Index), nil, spoil(100), 100 << 20},
		{
			"no answer", "no route", nil,
			func(context.Context, []byte, int64, int64) ([]byte, error) { return nil, errors.New("no route") },
			100 << 20,
		},
		{"disk too small", "holds 52428800 bytes, image test needs 73400320", nil, from(data), 50 << 20},
		{
			"cancelled", "canceled", canceled,
			func(_ context.Context, dst []byte, offset, length int64) ([]byte, error) {
				cancel()
				return from(data)(nil, dst, offset, length)
			}, 100 << 20,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := sparse(t, tt.size)
			d := open(t, path)
			ctx := tt.ctx
			if ctx == nil {
				ctx = context.Background()
			}
			_, err := d.Write(ctx, Write{Manifest: m, Fetch: tt.fetch})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write = %v, want an error with %q", err, tt.want)
			}
			if found := Probe(d, d.Size, d.Sector); len(found) > 0 {
				t.Errorf("a half-written disk shows %v, want nothing", found)
			}
		})
	}
}

// TestReadBackMends: a disk that claims to read zeros and does not is detected and repaired.
func TestReadBackMends(t *testing.T) {
	testnet.Long(t)
	need(t, "sgdisk")
	raw := diskImage(t, 70<<20, true)
	m, data := pack(t, raw)
	path := sparse(t, 100<<20)
	junk := bytes.Repeat([]byte{0xdb}, 100<<20)
	if err := os.WriteFile(path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	if _, err := d.Write(context.Background(),
		Write{Manifest: m, Fetch: from(data), Zeros: true}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got[:len(raw)], raw) {
		t.Error("the disk does not hold the image")
	}
}
