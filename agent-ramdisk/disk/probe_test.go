package disk

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
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

func FuzzReadGPT(f *testing.F) {
	f.Add(smallGPT(f))
	f.Add([]byte("EFI PART"))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := readGPT(bytes.NewReader(data), 512, 1)
		if err != nil {
			return
		}
		if _, err := readGPT(bytes.NewReader(slices.Concat(make([]byte, 512), g.encode(), data[min(len(data), 1024):])), 512, 1); err != nil {
			t.Errorf("what encode wrote does not read: %v", err)
		}
		_, _ = g.partitions(1 << 30)
	})
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
