package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/internal/parttable"
	"github.com/pxectl/pxectl/internal/testnet"
)

// sfdisk partitions a disk by a script.
func sfdisk(t *testing.T, path, script string) {
	t.Helper()
	cmd := exec.Command("sfdisk", "--quiet", "--no-reread", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
}

// byPartx lists number, start and size in sectors of the partitions, as util-linux reads them.
func byPartx(t *testing.T, path string) (parts []string) {
	t.Helper()
	for line := range strings.Lines(run(t, "partx", "--show", "-g", "-o", "NR,START,SECTORS", path)) {
		parts = append(parts, strings.Join(strings.Fields(line), " "))
	}
	return parts
}

func byUs(d *Device) (parts []string) {
	for _, p := range parttable.Read(d, d.Size, d.Sector).Partitions {
		parts = append(parts, fmt.Sprintf("%d %d %d", p.Number, p.Offset/512, p.Length/512))
	}
	return parts
}

func TestMBR(t *testing.T) {
	testnet.Long(t)
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
			if err := json.Unmarshal([]byte(run(t, "sfdisk", "--json", path)), &table); err != nil ||
				table.Table.Label != "dos" || len(table.Table.Partitions) != tt.partitions {
				t.Errorf("sfdisk sees %+v, %v", table, err)
			}
			checkSeed(t, path, f)
			checkRanges(t, path, raw, f)
		})
	}
}

// TestTablesAsTheKernelReadsThem: a GPT counts only with a protective MBR. A GPT without an MBR gets one.
func TestTablesAsTheKernelReadsThem(t *testing.T) {
	testnet.Long(t)
	need(t, "sgdisk", "sfdisk", "partx")
	const size = 70 << 20
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, path string) // a disk with a GPT of one partition of 20 MiB
		kind  string
		want  []string // of partx before the seed is added
	}{
		{"MBR written over a GPT", func(t *testing.T, path string) {
			cmd := exec.Command("sfdisk", "--quiet", "--no-reread", "--wipe", "never", path)
			cmd.Stdin = strings.NewReader("label: dos\n4096,20480,83,*\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk: %v\n%s", err, out)
			}
		}, "mbr", []string{"1 4096 20480"}},
		{"GPT without an MBR", func(t *testing.T, path string) {
			if _, err := open(t, path).WriteAt(make([]byte, 512), 0); err != nil {
				t.Fatal(err)
			}
		}, "gpt", nil},
		{"GPT with boot code and an empty MBR", func(t *testing.T, path string) {
			sector := make([]byte, 512)
			copy(sector, "boot code")
			sector[510], sector[511] = 0x55, 0xaa
			if _, err := open(t, path).WriteAt(sector, 0); err != nil {
				t.Fatal(err)
			}
		}, "gpt", nil},
		{
			"hybrid MBR", func(t *testing.T, path string) { run(t, "sgdisk", "--hybrid", "1", path) }, "gpt",
			[]string{"1 2048 40960"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := sparse(t, size)
			run(t, "sgdisk", "-n", "1:2048:+20M", path)
			tt.spoil(t, path)
			d := open(t, path)
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
			if tt.want != nil {
				if got := byPartx(t, path); !slices.Equal(got, tt.want) {
					t.Fatalf("partx sees %q, want %q", got, tt.want)
				}
			}
			if got := parttable.Read(d, d.Size, d.Sector); got.Kind != tt.kind || got.Fault != nil {
				t.Errorf("Read = %q, %v, want %q", got.Kind, got.Fault, tt.kind)
			}
			if _, err := d.Finish(seed); err != nil {
				t.Fatal(err)
			}
			if got, want := byUs(d), byPartx(t, path); !slices.Equal(got, want) || len(got) != 2 {
				t.Errorf("with the seed: %q, partx sees %q; want two partitions", got, want)
			}
		})
	}
}
