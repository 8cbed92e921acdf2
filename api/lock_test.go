package api

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNobodyElseCanLock: a lock on the directory, which any reader may take, does not keep the socket away,
// and a lock file that others prepared is refused.
func TestNobodyElseCanLock(t *testing.T) {
	dir, err := os.MkdirTemp("", "px") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatalf("somebody holds the directory's lock: %v", err)
	}
	l.Close()
	if st, err := os.Lstat(filepath.Join(dir, "s.lock")); err != nil || st.Mode() != 0o600 {
		t.Errorf("the lock file: %v, %v, want mode 0600", st, err)
	}
	for name, prepare := range map[string]func(path string) error{
		"open to others": func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o666)
		},
		"a link": func(path string) error { return os.Symlink("/etc/hostname", path) },
	} {
		path := filepath.Join(dir, "t.lock")
		os.Remove(path)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if l, err := ListenUnix(filepath.Join(dir, "t")); err == nil {
			l.Close()
			t.Errorf("a lock file that is %s was taken", name)
		}
	}
}
