package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCopySparse(t *testing.T) {
	const size = 64 << 20
	data := bytes.Repeat([]byte("pxe!"), 4096)
	tests := []struct {
		name string
		at   []int64
	}{
		{name: "empty disk"},
		{name: "data at the start", at: []int64{0}},
		{name: "data in the middle and at the end", at: []int64{8 << 20, size - 16384}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "a"), filepath.Join(dir, "b")
			f, err := os.Create(from)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			for _, at := range tt.at {
				if _, err := f.WriteAt(data, at); err != nil {
					t.Fatal(err)
				}
			}
			if err := copySparse(to, from); err != nil {
				t.Fatal(err)
			}
			want, _ := os.ReadFile(from)
			got, _ := os.ReadFile(to)
			if !bytes.Equal(got, want) {
				t.Errorf("copy differs: %d bytes, want %d", len(got), len(want))
			}
			var st syscall.Stat_t
			if err := syscall.Stat(to, &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("copy takes %d bytes on the host, %v, want its holes kept", st.Blocks*512, err)
			}
		})
	}
}
