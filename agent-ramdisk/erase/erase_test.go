package erase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

const diskSize = 8<<20 + 512 // an odd end

// newDisk is a file full of old data.
func newDisk(t *testing.T) *disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	old := bytes.Repeat([]byte("the old system. "), diskSize/16)
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	d.poll = time.Millisecond
	return d
}

// fill writes one byte, or pseudo-random bytes, all over the disk, like a drive that erases itself.
func fill(d *disk, b byte, random bool) {
	data := bytes.Repeat([]byte{b}, int(d.Size))
	if random {
		for i := range data {
			data[i] = byte(i*i>>3 ^ i>>7 ^ 0x55)
		}
	}
	if _, err := d.File.WriteAt(data, 0); err != nil {
		panic(err)
	}
}

func TestOverwriteIsTheLastRung(t *testing.T) {
	d := newDisk(t)
	var reported uint64
	d.progress = func(_ string, done, _ uint64) { reported = max(reported, done) }
	out, err := d.erase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &inventory.Erased{
		Method: "overwrite with zeros", Passed: []string{"discard: it is no block device"}, Bytes: diskSize,
		Checked: 1024, TookMS: out.TookMS,
		Proof: "read back 1024 places: 1024 read zeros, none of the 1024 that held data reads as before",
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("erased (-want +got):\n%s", diff)
	}
	got, err := os.ReadFile(d.File.Name())
	if err != nil || !isZero(got) || len(got) != diskSize {
		t.Errorf("%d bytes are left, zeros: %v, %v", len(got), isZero(got), err)
	}
	if reported != diskSize {
		t.Errorf("progress ended at %d of %d", reported, diskSize)
	}
}

func TestDiskOfAFile(t *testing.T) {
	path := newDisk(t).File.Name()
	out, err := Disk(t.Context(), path, func(string, uint64, uint64) {})
	if err != nil || out.Method != "overwrite with zeros" {
		t.Errorf("Disk = %+v, %v", out, err)
	}
	if _, err := Disk(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disk that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Disk(ctx, path, func(string, uint64, uint64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// outcome erases a disk. It returns the method that did it, or the error, and the methods that were passed
// over.
func outcome(t *testing.T, d *disk) (methodOrError, passed string) {
	t.Helper()
	out, err := d.erase(t.Context())
	if err != nil {
		return err.Error(), ""
	}
	return out.Method, strings.Join(out.Passed, "; ")
}

// A disk that accepts zeros and keeps its data is detected.
func TestProof(t *testing.T) {
	d := newDisk(t)
	before, err := d.sample(places(d.Size))
	if err != nil {
		t.Fatal(err)
	}
	var out inventory.Erased
	for _, c := range []struct {
		name  string
		after func()
		zeros bool
		want  string
	}{
		{"nothing was done", func() {}, false, "what was there before"},
		{"nothing was done, zeros are wanted", func() {}, true, "not zeros"},
		{"erased to ones", func() { fill(d, 0xff, false) }, false, ""},
		{"erased to ones, zeros are wanted", func() { fill(d, 0xff, false) }, true, "not zeros"},
		{"erased to chance", func() { fill(d, 0, true) }, false, ""},
		{"erased to zeros", func() { fill(d, 0, false) }, true, ""},
	} {
		c.after()
		err := d.prove(method{name: "r", zeros: c.zeros}, before, &out)
		said := fmt.Sprint(err)
		if c.want == "" && err != nil || !strings.Contains(said, c.want) ||
			c.want != "" && !errors.Is(err, errPassed) {
			t.Errorf("%s: prove = %v, want %q", c.name, err, c.want)
		}
	}
}

func TestMain(m *testing.M) { testnet.Main(m) }

// A loop device on a sparse file discards, and reads zeros afterwards.
func TestDiscardIsProved(t *testing.T) {
	testnet.Need(t, "losetup")
	path := newDisk(t).File.Name()
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	dev := strings.TrimSpace(string(out))
	defer func() {
		if err := exec.Command("losetup", "-d", dev).Run(); err != nil {
			t.Error(err)
		}
	}()
	erased, err := Disk(t.Context(), dev, func(string, uint64, uint64) {})
	if err != nil || erased.Method != "discard" || len(erased.Passed) != 0 || erased.Checked != 1024 {
		t.Errorf("Disk = %+v, %v, want a discard, read back in 1024 places", erased, err)
	}
	if got, err := os.ReadFile(dev); err != nil || !isZero(got) {
		t.Errorf("the loop device does not read zeros: %v", err)
	}
}
