package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab/verify"
)

// differ compares a machine's disk with an image of the appliance, from outside.
func (r *rack) differ(name, imageID string) verify.Difference {
	r.t.Helper()
	d, err := verify.Differ(r.Disk(name, 0), filepath.Join(r.dir, "data", "images"), imageID)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// proveDelta checks that a deployment fetched the chunks that its disk lacked, and no others.
func (r *rack) proveDelta(d inventory.Deployment, lacked verify.Difference) {
	r.t.Helper()
	w := d.Written
	if w == nil || w.Mode != inventory.ModeDelta {
		r.t.Fatalf("the image was not written as a delta: %+v", w)
	}
	if w.Fetched != lacked.Fetch || w.Kept != lacked.Chunks-lacked.Differ {
		r.t.Errorf("%d chunks were fetched and %d kept, want %d and %d", w.Fetched, w.Kept, lacked.Fetch,
			lacked.Chunks-lacked.Differ)
	}
	if w.Sent > lacked.Bytes*11/10 {
		r.t.Errorf("%d bytes travelled for %d that the disk lacked, want at most 1.1 times as many", w.Sent,
			lacked.Bytes)
	}
	if w.ReadBack != w.Chunks {
		r.t.Errorf("%d of %d chunks were verified on the medium", w.ReadBack, w.Chunks)
	}
}

// Marks of a system on a disk.
const (
	partitionTable = "EFI PART"
	fatSystem      = "FAT16   "
	grubMenu       = `menuentry "Linux"`
)

func (r *rack) scan(disk string) verify.Scan {
	r.t.Helper()
	marks := map[string]string{}
	for _, m := range []string{partitionTable, fatSystem, grubMenu, phrase} {
		marks[m] = m
	}
	s, err := verify.ScanDisk(disk, marks)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// erasures has the erase methods that QEMU's disks cannot do, and the one that they can. Its NVMe formats and
// does not sanitize, and its SATA disk has no security feature set.
var erasures = map[string]struct {
	passed []string
	method string
}{
	"virtio": {nil, "discard"},
	"sata":   {[]string{"ATA secure erase", "SCSI sanitize"}, "discard"},
	"nvme":   {[]string{"NVMe sanitize"}, "NVMe format with secure erase"},
}

// proveErase releases a machine and reads its disk from outside.
func (r *rack) proveErase(name, bus string) {
	r.t.Helper()
	disk := r.Disk(name, 0)
	before := r.scan(disk)
	for _, mark := range []string{partitionTable, fatSystem, grubMenu} {
		if !slices.Contains(before.Marks, mark) {
			r.t.Fatalf("before the release the disk shows only %q: that %q is not found afterwards would prove nothing",
				before.Marks, mark)
		}
	}
	r.pxectl("release", name, "--yes", "--wait", "--timeout", "6m")
	if m := r.machine(name); m.State != inventory.Available || m.Holds != "" {
		r.t.Errorf("after the release %s is %s and holds %q", name, m.State, m.Holds)
	}
	if after := r.scan(disk); after.NonZero != 0 || len(after.Marks) != 0 {
		r.t.Errorf("after the release the disk holds %d bytes that are not zero, and shows %q", after.NonZero,
			after.Marks)
	}
	var records []inventory.Erasure
	if err := json.Unmarshal([]byte(r.pxectl("machine", "erasures", name, "-o", "json")),
		&records); err != nil {
		r.t.Fatal(err)
	}
	if len(records) != 1 {
		r.t.Fatalf("the release left %d records, want 1: %+v", len(records), records)
	}
	record, want := records[0], erasures[bus]
	var passed []string
	for _, p := range record.Passed {
		method, _, _ := strings.Cut(p, ": ")
		passed = append(passed, method)
	}
	if record.Method != want.method || !slices.Equal(passed, want.passed) ||
		!strings.HasPrefix(record.Proof, "read back 1024 places: 1024 read zeros") ||
		record.MachineName != name || !strings.HasPrefix(record.Disk.Serial, "LAB") {
		r.t.Errorf("the record of the release is %+v, want one by %s, with %v passed over", record,
			want.method, want.passed)
	}
	r.t.Logf("erased by %s in %d ms: %s; passed over: %q", record.Method, record.TookMS, record.Proof,
		record.Passed)
}

// unlabelled checks that both ends of a disk, where firmware and boot loaders look, are empty.
func unlabelled(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	end := make([]byte, 1<<20)
	for _, at := range []int64{0, st.Size() - int64(len(end))} {
		if _, err := f.ReadAt(end, at); err != nil {
			t.Fatal(err)
		}
		if !images.IsZero(end) {
			t.Errorf("the MiB at %d of the disk is not empty", at)
		}
	}
}

// allocated is the size of a disk's file without its holes.
func allocated(t *testing.T, disk string) int64 {
	t.Helper()
	st, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}
