package modules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestReadModule(t *testing.T) {
	dir := t.TempDir()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	image := []byte("\x7fELF and more")
	for name, data := range map[string][]byte{
		"plain.ko":      image,
		"packed.ko.zst": enc.EncodeAll(image, nil),
		"bomb.ko.zst":   enc.EncodeAll(make([]byte, maxModule+1), nil),
		"cut.ko.zst":    enc.EncodeAll(image, nil)[:9],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, good := range map[string]bool{
		"plain.ko": true, "packed.ko.zst": true, "bomb.ko.zst": false,
		"cut.ko.zst": false, "none.ko": false,
	} {
		got, err := readModule(filepath.Join(dir, name))
		if good != (err == nil) || good && string(got) != string(image) {
			t.Errorf("readModule(%s) = %q, %v", name, got[:min(len(got), 20)], err)
		}
	}
}
