package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDirectoryIsOurs: Up refuses a directory that another user has made or may write to.
func TestDirectoryIsOurs(t *testing.T) {
	parent := t.TempDir()
	fresh := filepath.Join(parent, "fresh")
	for range 2 {
		if err := ownDir(fresh); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(fresh); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("mode %v, %v, want 0700", st.Mode(), err)
		}
	}
	open := filepath.Join(parent, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, "link")
	if err := os.Symlink(fresh, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link, file} {
		if err := ownDir(dir); err == nil {
			t.Errorf("%s was taken", dir)
		}
	}
	if os.Geteuid() == 0 {
		others := filepath.Join(parent, "others")
		if err := os.Mkdir(others, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(others, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := ownDir(others); err == nil {
			t.Error("somebody else's directory was taken")
		}
	}
}
