package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The appliance leaves a directory that is there as it is.
func TestDataDirIsClosed(t *testing.T) {
	d := demo{dir: filepath.Join(t.TempDir(), "demo"), ramdisk: t.TempDir()}
	if err := os.WriteFile(filepath.Join(d.ramdisk, "initrd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.makeData(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(d.dir, "data"))
	if err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("data_dir is %v, %v, want it closed to others", st.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "data", "ramdisk", "initrd")); err != nil {
		t.Error(err)
	}
}
