package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, text := range []string{"first", "second"} {
		if err := Write(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		st, serr := os.Stat(path)
		if err != nil || serr != nil || string(got) != text || st.Mode().Perm() != 0o640 {
			t.Errorf("the file holds %q, %v, %v; want %q with mode 0640", got, err, serr, text)
		}
	}
	f, err := Replace(path, []byte("third"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(" and more")
	f.Close()
	if got, _ := os.ReadFile(path); err != nil || string(got) != "third and more" {
		t.Errorf("a file that is written on holds %q, %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("Write over a directory: want an error")
	}
	if err := os.Remove(filepath.Join(dir, "taken")); err != nil {
		t.Fatal(err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("%d files are left, want one", len(all))
	}
	if err := Write(filepath.Join(dir, "no", "such", "dir"), nil, 0o600); err == nil {
		t.Error("Write into a directory that is not there: want an error")
	}
}
