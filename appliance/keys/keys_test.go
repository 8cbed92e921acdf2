package keys

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/inventory"
)

func TestKeysAreMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.Seal([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed), "hunter2") {
		t.Error("the sealed secret shows the plain text")
	}
	second, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := second.Unseal(sealed); err != nil || string(plain) != "hunter2" {
		t.Errorf("unseal after a restart = %q, %v", plain, err)
	}
	if first.Pin != second.Pin {
		t.Errorf("the pin changed from %s to %s", first.Pin, second.Pin)
	}
	cert, err := x509.ParseCertificate(second.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo); second.Pin != "sha256:"+
		hex.EncodeToString(sum[:]) {
		t.Errorf("the pin %s is not the hash of the certificate's key", second.Pin)
	}
	other, err := Load(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := other.Unseal(sealed); err == nil {
		t.Errorf("another appliance unseals it: %q", plain)
	}
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nonce.key")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("loadKeys with a readable key: %v, want the way out", err)
	}
}

func TestDamagedKeysAreRefused(t *testing.T) {
	for _, name := range []string{"age.key", "nonce.key", "tls.key"} {
		dir := filepath.Join(t.TempDir(), "keys")
		if _, err := Load(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), name+": ") ||
			!strings.HasPrefix(inventory.AsProblem(err).Hint, "put it back from your copy of data_dir") {
			t.Errorf("Load with a damaged %s: %v, want it named, and the next move", name, err)
		}
	}
}
