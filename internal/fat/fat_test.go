package fat

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var seed = []File{
	{"meta-data", []byte("instance-id: i-1\nlocal-hostname: m1\n")},
	{"user-data", bytes.Repeat([]byte("#cloud-config\n"), 3000)},
	{"vendor-data", nil},
	{"network-config", []byte("version: 2\n")},
}

// Other programs check the filesystem: fsck.fat its structure, mtools the names and contents, blkid the label
// that cloud-init looks for.
func TestOthersReadIt(t *testing.T) {
	for _, p := range []string{"fsck.fat", "mcopy", "mdir", "blkid"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED %s: needs the program %s, which is not installed", t.Name(), p)
		}
	}
	for _, tt := range []struct {
		name         string
		size, sector int
		kind         string
	}{
		{"1 MiB", 1 << 20, 512, "FAT12"},
		{"4 MiB", 4 << 20, 512, "FAT16"},
		{"16 MiB", 16 << 20, 512, "FAT16"},
		{"32 MiB", 32 << 20, 512, "FAT16"},
		{"64 MiB", 64 << 20, 512, "FAT16"},
		{"4 MiB of 4Kn", 4 << 20, 4096, "FAT12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			img, err := Build(tt.size, tt.sector, "cidata", seed)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "fs")
			if err := os.WriteFile(file, img, 0o644); err != nil {
				t.Fatal(err)
			}
			run(t, "fsck.fat", "-n", "-v", file)
			out := run(t, "blkid", "-p", file)
			for _, want := range []string{`LABEL="cidata"`, `TYPE="vfat"`, `VERSION="` + tt.kind + `"`} {
				if !strings.Contains(out, want) {
					t.Errorf("blkid: %s, want %s", out, want)
				}
			}
			for _, f := range seed {
				if got := run(t, "mcopy", "-i", file, "::"+f.Name, "-"); got != string(f.Data) {
					t.Errorf("%s read back has %d bytes, want %d", f.Name, len(got), len(f.Data))
				}
			}
		})
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want   string
		size, sector int
		label        string
		files        []File
	}{
		{
			"too much", "user-data of 2097152 bytes does not fit", 1 << 20, 512, "cidata",
			[]File{{"user-data", make([]byte, 2<<20)}},
		},
		{"too small", "no layout", 8 << 10, 512, "cidata", nil},
		{"odd sector", "sector size 520", 1 << 20, 520, "cidata", nil},
		{"long label", "label", 1 << 20, 512, "cidatacidata", nil},
		{"path", "file name", 1 << 20, 512, "cidata", []File{{"a/b", nil}}},
		{"full", "directory is full", 4 << 20, 512, "cidata", make500()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Build(tt.size, tt.sector, tt.label, tt.files); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("Build = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func make500() []File {
	files := make([]File, 500)
	for i := range files {
		files[i].Name = "x"
	}
	return files
}

func FuzzBuild(f *testing.F) {
	f.Add(1<<20, "cidata", "meta-data", 100)
	f.Fuzz(func(t *testing.T, size int, label, name string, length int) {
		if size < 0 || size > 4<<20 || length < 0 || length > 4<<20 {
			return
		}
		img, err := Build(size, 512, label, []File{{name, make([]byte, length)}})
		if err == nil && len(img) != size {
			t.Errorf("%d bytes, want %d", len(img), size)
		}
	})
}
