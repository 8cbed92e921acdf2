package api_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/api"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "pxectl", "s")
	l, err := api.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o660 {
		t.Errorf("socket is %v, %v, want a socket of mode 0660", st, err)
	}
	if _, err := api.ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another pxectl serve") {
		t.Errorf("ListenUnix beside a live one = %v, want an error that says so", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first listener is gone: %v", err)
	} else {
		c.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".px*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	l.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket after Close: %v, want none", err)
	}
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as kill -9 leaves it
	dead.Close()
	l, err := api.ListenUnix(path)
	if err != nil {
		t.Fatalf("ListenUnix over a stale socket = %v", err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestListenUnixRefuses(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, says string }{
		"a file":          {file, "not a socket"},
		"below a file":    {filepath.Join(file, "s"), "not a directory"},
		"a path too long": {filepath.Join(dir, strings.Repeat("x", 120)), "too long"},
		"a directory":     {dir, "not a socket"},
		"a dangling link": {symlink(t, dir), "not a socket"},
	} {
		if l, err := api.ListenUnix(tt.path); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: ListenUnix = %v, %v, want an error with %q", name, l, err, tt.says)
		}
	}
	if data, err := os.ReadFile(file); string(data) != "precious" {
		t.Errorf("the file that was in the way is now %q, %v", data, err)
	}
}

func symlink(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), path); err != nil {
		t.Fatal(err)
	}
	return path
}
