package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// sfdisk partitions a disk as its script says.
func sfdisk(t *testing.T, path, script string) {
	t.Helper()
	cmd := exec.Command("sfdisk", "--quiet", "--no-reread", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
}

// byPartx lists number, start and size in sectors of the partitions, as util-linux sees them.
func byPartx(t *testing.T, path string) (parts []string) {
	t.Helper()
	for line := range strings.Lines(run(t, "partx", "--show", "-g", "-o", "NR,START,SECTORS", path)) {
		parts = append(parts, strings.Join(strings.Fields(line), " "))
	}
	return parts
}

func byUs(d *Device) (parts []string) {
	_, list := partitions(d, d.Size, d.Sector)
	for _, p := range list {
		parts = append(parts, fmt.Sprintf("%d %d %d", p.number, p.offset/512, p.length/512))
	}
	return parts
}

func TestMBR(t *testing.T) {
	need(t, "sfdisk", "partx", "mcopy", "blkid")
	for _, tt := range []struct {
		name, script, want string
		partitions         int
	}{
		{"one partition", "label: dos\n2048,,83,*\n", "", 2},
		{"logical ones", "label: dos\n2048,20480,83,*\n,,5\n,20480,83\n,20480,82\n,,83\n", "", 6},
		{"all four used", "label: dos\n2048,2048,83\n,2048,83\n,2048,83\n,2048,83\n", "all four entries", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const size = 70 << 20
			image := sparse(t, size)
			sfdisk(t, image, tt.script)
			raw := make([]byte, size)
			if _, err := open(t, image).ReadAt(raw, 0); err != nil {
				t.Fatal(err)
			}
			copy(raw, "boot code")
			path := sparse(t, 100<<20)
			d := open(t, path)
			m, data := pack(t, raw)
			if _, err := d.Write(context.Background(), Write{Manifest: m, Fetch: from(data)}); err != nil {
				t.Fatal(err)
			}
			if got, want := byUs(d), byPartx(t, path); !slices.Equal(got, want) {
				t.Errorf("partitions = %q, partx says %q", got, want)
			}
			f, err := d.Finish(seed)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Finish = %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.Partitions != tt.partitions {
				t.Errorf("Finish = %+v, want %d partitions", f, tt.partitions)
			}
			again, err := d.Finish(seed)
			if err != nil || again.Partitions != f.Partitions {
				t.Errorf("Finish again = %+v, %v", again, err)
			}
			var table struct {
				Table struct {
					Label      string `json:"label"`
					Partitions []any  `json:"partitions"`
				} `json:"partitiontable"`
			}
			if err := json.Unmarshal([]byte(run(t, "sfdisk", "--json", path)), &table); err != nil || table.Table.Label != "dos" || len(table.Table.Partitions) != tt.partitions {
				t.Errorf("sfdisk sees %+v, %v", table, err)
			}
			checkSeed(t, path, f)
			checkRanges(t, path, raw, f)
		})
	}
}

// FuzzPartitions: no disk makes the reading of its table fail, take long, or find partitions outside of it.
func FuzzPartitions(f *testing.F) {
	boot := make([]byte, 64<<10)
	copy(boot[446:], "\x80\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x10\x00\x00\x00\x20\x00\x00\x00")
	boot[510], boot[511] = 0x55, 0xaa
	copy(boot[16*512:], boot[:512])
	f.Add(boot)
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := make([]byte, 64<<10)
		copy(disk, data)
		_, parts := partitions(strings.NewReader(string(disk)), int64(len(disk)), 512)
		for _, p := range parts {
			if p.offset < 0 || p.length <= 0 || p.offset+p.length > int64(len(disk)) {
				t.Errorf("partition %+v on a disk of %d bytes", p, len(disk))
			}
		}
	})
}
