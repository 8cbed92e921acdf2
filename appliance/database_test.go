package appliance

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// A lost database or key is an error and is not replaced. A first start that was cut short goes on.
func TestLostDatabase(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	start := func(dir string, anew bool) error {
		db, _, err := openDatabase(dir, anew, quiet)
		if err != nil {
			return err
		}
		return db.Close()
	}
	remove := func(names ...string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			for _, n := range names {
				if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	used := func(t *testing.T, dir string) {
		db, err := boltdb.Open(filepath.Join(dir, "pxectl.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Update(func(tx *boltdb.Tx) error {
			return tx.PutMachine(inventory.Machine{ID: "m-00000001", Name: "m1"})
		}); err != nil {
			t.Fatal(err)
		}
	}
	image := "images/" + strings.Repeat("a", 64) + "/manifest.json"
	for _, c := range []struct {
		name  string
		spoil []func(t *testing.T, dir string) // after a first start
		anew  bool
		want  string
	}{
		{name: "started again"},
		{name: "started again with machines", spoil: []func(*testing.T, string){used}},
		{
			name:  "database lost",
			spoil: []func(*testing.T, string){remove("pxectl.db")},
			want:  "every machine that was deployed would be offered the agent",
		},
		{
			name:  "database emptied",
			spoil: []func(*testing.T, string){write("pxectl.db", "")},
			want:  "missing or empty",
		},
		{
			name:  "database lost, images left",
			spoil: []func(*testing.T, string){remove("pxectl.db", "keys"), write(image, "{}")},
			want:  "missing or empty",
		},
		{
			name:  "database lost, and said so",
			spoil: []func(*testing.T, string){remove("pxectl.db")},
			anew:  true,
		},
		{name: "said so, and not lost", anew: true, want: "there is a database"},
		{
			name:  "first start cut before its keys",
			spoil: []func(*testing.T, string){remove("keys")},
			want:  "",
		},
		{
			name:  "a key lost",
			spoil: []func(*testing.T, string){used, remove("keys/nonce.key")},
			want:  "nonce.key of this database's appliance is missing",
		},
		{
			name:  "a key emptied",
			spoil: []func(*testing.T, string){used, write("keys/age.key", "")},
			want:  "age.key of this database's appliance is missing",
		},
	} {
		dir := t.TempDir()
		if err := start(dir, false); err != nil {
			t.Fatalf("%s: first start: %v", c.name, err)
		}
		if c.name == "first start cut before its keys" {
			db, err := boltdb.Open(filepath.Join(dir, "pxectl.db"))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.SetOwner(""); err != nil {
				t.Fatal(err)
			}
			db.Close()
		}
		for _, f := range c.spoil {
			f(t, dir)
		}
		got := ""
		if err := start(dir, c.anew); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}

	// A database does not open with the keys of another appliance.
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := start(dir, false); err != nil {
			t.Fatal(err)
		}
	}
	remove("keys")(t, a)
	if err := os.Rename(filepath.Join(b, "keys"), filepath.Join(a, "keys")); err != nil {
		t.Fatal(err)
	}
	if err := start(a, false); err == nil || !strings.Contains(err.Error(), "belongs to another appliance") {
		t.Errorf("another appliance's keys: %v", err)
	}
}

func TestConfigCheckDoesNotShowTheFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"shadow": "root:$y$j9T$SECRETSECRETSECRETSECRETSECRETSECRETSECRET:19000:0:99999:7:::\n" +
			"daemon:*:19000:0:99999:7:::\n",
		"yaml":    "password: SECRETSECRETSECRET\nother: [SECRETSECRETSECRET\n",
		"words":   strings.Repeat("SECRETSECRETSECRET\n", 1000),
		"binary":  "\x7fELF\xff\xfeSECRETSECRETSECRET",
		"too big": strings.Repeat("# SECRETSECRETSECRET\n", 1<<16),
		"key":     "-----BEGIN PRIVATE KEY-----\nSECRETSECRETSECRET\n-----END PRIVATE KEY-----\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(path)
		if err == nil || strings.Contains(err.Error(), "SECRETSECRET") || len(err.Error()) > 4000 {
			t.Errorf("%s: Load = %v, want an error that does not show the file", name, err)
		}
	}
}
