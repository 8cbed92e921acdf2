package verify

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanDisk(t *testing.T) {
	marks := map[string]string{"table": "EFI PART", "phrase": "once upon a time", "other": "never written"}
	const size = 5*scanBlock + 12345
	for _, tt := range []struct {
		name  string
		write map[int64]string
		want  Scan
	}{
		{name: "nothing but a hole"},
		{
			name:  "at the first and at the last byte",
			write: map[int64]string{0: "EFI PART", size - 16: "once upon a time"},
			want:  Scan{NonZero: 24, Marks: []string{"phrase", "table"}},
		},
		{
			name:  "across two blocks",
			write: map[int64]string{scanBlock - 3: "once upon a time", 4*scanBlock + 1<<19 - 1: "EFI"},
			want:  Scan{NonZero: 19, Marks: []string{"phrase"}},
		},
		{
			name:  "behind a hole",
			write: map[int64]string{3*scanBlock + 777: "\x00\x00EFI PART\x00"},
			want:  Scan{NonZero: 8, Marks: []string{"table"}},
		},
		{
			name:  "half before a hole and half behind it is no mark",
			write: map[int64]string{2*scanBlock - 4: "EFI ", 4 * scanBlock: "PART"},
			want:  Scan{NonZero: 8},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			for at, text := range tt.write {
				if _, err := f.WriteAt([]byte(text), at); err != nil {
					t.Fatal(err)
				}
			}
			got, err := ScanDisk(path, marks)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ScanDisk (-want +got):\n%s", diff)
			}
		})
	}
}
