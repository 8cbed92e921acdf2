package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

func TestErase(t *testing.T) {
	const size = 8 << 20
	for _, tt := range []struct {
		name   string
		order  inventory.Order
		absent bool
		method string // or a part of the error
		left   bool   // of the old data
	}{
		{name: "all of it", method: "overwrite with zeros"},
		{name: "quick", order: inventory.Order{Quick: true}, method: inventory.MethodMetadata, left: true},
		{name: "no such disk", absent: true, method: "is not there any more", left: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			ag.Dev = t.TempDir()
			path := filepath.Join(ag.Dev, "vda")
			if err := os.WriteFile(path, bytes.Repeat([]byte("the old system. "), size/16),
				0o600); err != nil {
				t.Fatal(err)
			}
			d := inventory.Disk{Name: "vda", Serial: "D1", Bytes: size}
			ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
			id := d.Identity()
			if tt.absent {
				id.Serial = "D2"
			}
			order := tt.order
			order.ID, order.Do, order.Targets = "e", inventory.DoErase, []inventory.DiskIdentity{id}
			a.orders = []inventory.Order{order, {ID: "r", Do: inventory.DoReboot}}
			ag.DiskWait = time.Millisecond
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			got := a.results[0]
			if got.Disk == nil || *got.Disk != id {
				t.Errorf("the result is of disk %+v, want %+v", got.Disk, id)
			}
			said := got.Error
			if got.Erased != nil {
				said = got.Erased.Method
			}
			if !strings.Contains(said, tt.method) || got.Erased != nil && got.Erased.Proof == "" {
				t.Errorf("erase = %+v, want %q", got, tt.method)
			}
			now, err := os.ReadFile(path)
			if left := bytes.Contains(now, []byte("the old system")); err != nil || left != tt.left {
				t.Errorf("the old data is there: %v, %v, want %v", left, err, tt.left)
			}
		})
	}
}

// Several disks are erased at once. The failure of one does not stop the others from being erased and
// reported.
func TestEraseSideBySide(t *testing.T) {
	testnet.Long(t)
	const size, disks = 8 << 20, maxErases + 2
	a := newAppliance(t)
	ag := newAgent(t, a)
	ag.Dev, ag.DiskWait = t.TempDir(), time.Millisecond
	var have []inventory.Disk
	order := inventory.Order{ID: "e", Do: inventory.DoErase}
	for i := range disks {
		d := inventory.Disk{Name: fmt.Sprintf("vd%c", 'a'+i), Serial: fmt.Sprintf("D%d", i), Bytes: size}
		if err := os.WriteFile(filepath.Join(ag.Dev, d.Name),
			bytes.Repeat([]byte("the old system. "), size/16), 0o600); err != nil {
			t.Fatal(err)
		}
		have = append(have, d)
		order.Targets = append(order.Targets, d.Identity())
	}
	order.Targets[0].Serial = "gone"
	ag.Disks = func() ([]inventory.Disk, error) { return have, nil }
	a.orders = []inventory.Order{order, order, {ID: "r", Do: inventory.DoReboot}}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	// The order comes twice, as after a restart of the appliance, and is done once.
	if len(a.results) != 2*disks+1 {
		t.Fatalf("%d results, want two for each of %d disks, and that of the reboot", len(a.results), disks)
	}
	reported := map[string]int64{}
	for i, r := range a.results[:2*disks] {
		if failed := r.Disk.Serial == "gone"; failed != (i%disks == disks-1) || failed != (r.Error != "") ||
			failed != (r.Erased == nil) {
			t.Errorf("result %d = %+v, want the one that failed last", i, r)
			continue
		}
		if r.Erased == nil {
			continue
		}
		if took, again := reported[r.Disk.Serial]; again && took != r.Erased.TookMS {
			t.Errorf("disk %s was erased twice", r.Disk.Serial)
		}
		reported[r.Disk.Serial] = r.Erased.TookMS
	}
	for i, d := range have {
		now, err := os.ReadFile(filepath.Join(ag.Dev, d.Name))
		if left := bytes.Contains(now, []byte("the old system")); err != nil || left != (i == 0) {
			t.Errorf("the old data is on %s: %v, %v, want %v", d.Name, left, err, i == 0)
		}
	}
}

func TestErasing(t *testing.T) {
	var got inventory.Progress
	e := &eraseProgress{
		disks: []diskProgress{{total: 100}, {total: 200}, {total: 700}},
		tell:  func(p inventory.Progress) { got = p },
	}
	check := func(done uint64, phase string) {
		t.Helper()
		if want := (inventory.Progress{Phase: phase, Done: done, Total: 1000}); got != want {
			t.Errorf("progress = %+v, want %+v", got, want)
		}
	}
	e.at(0, "NVMe sanitize", 50)
	check(50, "0 of 3 disks erased; NVMe sanitize")
	e.at(1, "discard", 200)
	check(250, "0 of 3 disks erased; NVMe sanitize, discard")
	e.at(1, "overwrite with zeros", 20) // the discard could not be proved
	check(70, "0 of 3 disks erased; NVMe sanitize, overwrite with zeros")
	e.end(0, true)
	check(120, "1 of 3 disks erased; overwrite with zeros")
	e.end(1, false)
	check(120, "1 of 3 disks erased, 1 failed")
	e.at(2, "discard", 700)
	e.end(2, true)
	check(820, "2 of 3 disks erased, 1 failed")

	one := &eraseProgress{disks: []diskProgress{{total: 10}}, tell: func(p inventory.Progress) { got = p }}
	one.at(0, "discard", 5)
	if want := (inventory.Progress{Phase: "discard", Done: 5, Total: 10}); got != want {
		t.Errorf("progress of one disk = %+v, want %+v", got, want)
	}
}
