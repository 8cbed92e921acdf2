package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/internal/atomicfile"
	"github.com/pxectl/pxectl/inventory"
)

// Keys are the appliance's secrets.
type Keys struct {
	age  *age.X25519Identity // secrets at rest
	Sign nonce.Key           // nonces and phone-home tokens
	TLS  tls.Certificate     // what agents are told to trust
	Pin  string              // of TLS: "sha256:" and the hash of its public key
}

// Load reads the keys of a directory. It makes those that are missing.
func Load(dir string) (k Keys, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, err
	}
	raw, err := keyFile(filepath.Join(dir, "age.key"), func() ([]byte, error) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		return []byte(id.String() + "\n"), nil
	})
	if err != nil {
		return k, err
	}
	if k.age, err = age.ParseX25519Identity(strings.TrimSpace(string(raw))); err != nil {
		return k, damaged(dir, "age.key", err)
	}
	raw, err = keyFile(filepath.Join(dir, "nonce.key"), func() ([]byte, error) {
		b := make([]byte, 32)
		rand.Read(b)
		return b, nil
	})
	if err != nil {
		return k, err
	}
	if len(raw) != 32 {
		return k, damaged(dir, "nonce.key", fmt.Errorf("%d bytes, want 32", len(raw)))
	}
	k.Sign = raw
	raw, err = keyFile(filepath.Join(dir, "tls.key"), func() ([]byte, error) {
		// P-256: the fastest handshake in Go, and every client knows it.
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(priv)
	})
	if err != nil {
		return k, err
	}
	k.TLS, k.Pin, err = certificate(raw)
	if err != nil {
		return k, damaged(dir, "tls.key", err)
	}
	return k, nil
}

func damaged(dir, name string, err error) error {
	return &inventory.Problem{
		Code: inventory.CodeConflict, Detail: fmt.Sprintf("%s: %v", filepath.Join(dir, name), err), Err: err,
		Hint: "put it back from your copy of data_dir; with a new one, " +
			"the secrets in the database could not be read, or no agent that runs would trust it",
	}
}

// certificate makes a self-signed certificate. Agents pin the key and check nothing else, so each run can
// make another certificate, and it need not expire.
func certificate(pkcs8 []byte) (cert tls.Certificate, pin string, err error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return cert, "", err
	}
	priv, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return cert, "", fmt.Errorf("a key of type %T, want ECDSA", key)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return cert, "", err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "pxectl appliance"},
		NotBefore:    time.Unix(0, 0), // the clock of a machine in the agent may be wrong
		NotAfter:     time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		return cert, "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(priv.Public())
	if err != nil {
		return cert, "", err
	}
	sum := sha256.Sum256(spki)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, "sha256:" +
		hex.EncodeToString(sum[:]), nil
}

// Open says whether a key's file has a mode that lets anybody but its owner in. Load refuses such a file.
func Open(path string) (mode fs.FileMode, open bool) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return st.Mode().Perm(), st.Mode().Perm()&0o077 != 0
}

// keyFile reads a key. It makes one that is missing, and writes it to disk before anything is signed or
// sealed with it.
func keyFile(path string, generate func() ([]byte, error)) ([]byte, error) {
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		if mode, open := Open(path); open {
			return nil, fmt.Errorf("%s: mode %04o lets others read it; run `chmod 600 %s`", path, mode, path)
		}
		return raw, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if raw, err = generate(); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return raw, atomicfile.Write(path, raw, 0o600)
}

// Seal encrypts a secret to the appliance's key.
func (k Keys) Seal(plain []byte) (inventory.Sealed, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, k.age.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Unseal decrypts what Seal made.
func (k Keys) Unseal(sealed inventory.Sealed) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.age)
	if err != nil {
		return nil, fmt.Errorf("the secret was sealed with another key: %w", err)
	}
	return io.ReadAll(r)
}

// ID is the public key that secrets are sealed to. It identifies the keys.
func (k Keys) ID() string { return k.age.Recipient().String() }

// In returns which key files are in dir, and which are missing or empty.
func In(dir string) (had, missing []string) {
	for _, name := range []string{"age.key", "nonce.key", "tls.key"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Size() > 0 {
			had = append(had, name)
		} else {
			missing = append(missing, name)
		}
	}
	return had, missing
}
