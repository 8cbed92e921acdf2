package disk

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/internal/testnet"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make []string
		want []string
	}{
		{"nothing", nil, nil},
		{"ext2", []string{"mkfs.ext2", "-q"}, []string{"ext2"}},
		{"ext3", []string{"mkfs.ext3", "-q"}, []string{"ext3"}},
		{"ext4", []string{"mkfs.ext4", "-q"}, []string{"ext4"}},
		{"xfs", []string{"mkfs.xfs", "-q"}, []string{"xfs"}},
		{"swap", []string{"mkswap"}, []string{"swap"}},
		{"cidata", []string{"mkfs.vfat", "-n", "CIDATA"}, []string{"cidata", "vfat"}},
		{"vfat", []string{"mkfs.vfat", "-F", "32"}, []string{"vfat"}},
		{"gpt", []string{"sgdisk", "-n", "1:0:0"}, []string{"gpt"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := sparse(t, 400<<20)
			if tt.make != nil {
				if _, err := exec.LookPath(tt.make[0]); err != nil {
					t.Skipf("SKIPPED %s: needs the program %s", t.Name(), tt.make[0])
				}
				run(t, tt.make[0], append(tt.make[1:], path)...)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := Probe(f, 400<<20, 512); !slices.Equal(got, tt.want) {
				t.Errorf("Probe = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBackupGPTIsFound(t *testing.T) {
	t.Parallel()
	need(t, "sgdisk")
	path := sparse(t, 64<<20)
	run(t, "sgdisk", "-n", "1:0:0", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw[:1<<20])
	if got := Probe(bytes.NewReader(raw), int64(len(raw)), 512); !slices.Equal(got, []string{"gpt"}) {
		t.Errorf("Probe without the primary GPT = %v, want [gpt]", got)
	}
}

func smallGPT(f *testing.F) []byte {
	if _, err := exec.LookPath("sgdisk"); err != nil {
		return nil
	}
	path := f.TempDir() + "/disk"
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		f.Fatal(err)
	}
	if out, err := exec.Command("sgdisk", "-n", "1:0:+1M", path).CombinedOutput(); err != nil {
		f.Fatalf("sgdisk: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return raw[:34*512]
}

func FuzzProbe(f *testing.F) {
	f.Add(smallGPT(f))
	f.Add([]byte("XFSB"))
	f.Add([]byte(strings.Repeat("\x00", 510) + "\x55\xaa"))
	f.Fuzz(func(t *testing.T, data []byte) {
		Probe(bytes.NewReader(data), int64(len(data)), 512)
		Probe(bytes.NewReader(data), 1<<30, 4096)
	})
}

// TestPrepareClearsCopies: a signature has copies, by which a repair tool finds it. The places are those of
// the programs that write them: cryptsetup's docs/on-disk-format-luks2, btrfs_sb_offset, bdev_label_positions
// of Ceph, md_p.h, mkswap.
func TestPrepareClearsCopies(t *testing.T) {
	testnet.Long(t)
	const disk = 1001 << 30
	const part = 600 << 30 // the size of the disk's partition
	for _, tt := range []struct {
		name  string
		magic string
		at    []int64 // from the start, or from the end if negative
	}{
		{
			"luks", "SKUL\xba\xbe",
			[]int64{0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000},
		},
		{"btrfs", "_BHRfS_M", []int64{0x10040, 64<<20 + 0x40, 256<<30 + 0x40}},
		{"bluestore", "bluestore block device", []int64{0, 1 << 30, 10 << 30, 100 << 30, 1000 << 30}},
		{"md", "\xfc\x4e\x2b\xa9", []int64{0, 4096, -65536, -8192}},
		{"swap", "SWAPSPACE2", []int64{4096 - 10, 8192 - 10, 16384 - 10, 32768 - 10, 65536 - 10}},
		{"vmfs", "\x0d\xd0\x01\xc0", []int64{0x100000, 0x200000}},
	} {
		for _, where := range []struct {
			name        string
			start, size int64
		}{{"disk", 0, disk}, {"partition", 1 << 20, part}} {
			t.Run(tt.name+" of the "+where.name, func(t *testing.T) {
				d := open(t, sparse(t, disk))
				if where.start > 0 {
					writeTable(t, d, where.start, where.size)
				}
				var places []int64
				for _, at := range tt.at {
					if at < 0 {
						at += where.size
					}
					if at+4096 <= where.size {
						places = append(places, where.start+at)
					}
				}
				write := func(what string, at int64) {
					t.Helper()
					if _, err := d.WriteAt([]byte(what), at); err != nil {
						t.Fatal(err)
					}
				}
				for _, at := range places {
					write(tt.magic, at)
					if found := Probe(d, d.Size, d.Sector); !slices.Contains(found, tt.name) {
						t.Errorf("Probe with the signature at %d alone = %v, want %s in it", at, found,
							tt.name)
					}
					write(strings.Repeat("\x00", len(tt.magic)), at)
				}
				for _, at := range places {
					write(tt.magic, at)
				}
				if _, err := d.Prepare(0); err != nil {
					t.Fatal(err)
				}
				for _, at := range places {
					got := make([]byte, len(tt.magic))
					if _, err := d.ReadAt(got, at); err != nil || string(got) == tt.magic {
						t.Errorf("Prepare left the signature at %d (%v)", at, err)
					}
				}
			})
		}
	}
}

// writeTable gives the disk a GPT with one partition.
func writeTable(t *testing.T, d *Device, start, size int64) {
	t.Helper()
	need(t, "sgdisk")
	run(t, "sgdisk", "-a", "1", "-n", fmt.Sprintf("1:%d:%d", start/512, (start+size)/512-1), d.File.Name())
}
