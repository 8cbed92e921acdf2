package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
			if err := os.WriteFile(path, bytes.Repeat([]byte("the old system. "), size/16), 0o600); err != nil {
				t.Fatal(err)
			}
			d := inventory.Disk{Name: "vda", Serial: "D1", Bytes: size}
			ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
			id := d.Identity()
			if tt.absent {
				id.Serial = "D2"
			}
			order := tt.order
			order.ID, order.Do, order.Target = "e", inventory.DoErase, &id
			a.orders = []inventory.Order{order, {ID: "r", Do: inventory.DoReboot}}
			ag.DiskWait = time.Millisecond
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			got := a.results[0]
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
