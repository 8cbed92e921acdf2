package appliance

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/deploy/nonce"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// A countingReader counts what is read of it.
type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A form is read only behind the right token, and no more of it than its bound.
func TestPhoneHomeForms(t *testing.T) {
	db, err := boltdb.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *boltdb.Tx) error {
		m := inventory.Machine{ID: "m-1", Name: "m1", State: inventory.Deployed, Deployment: "d-1"}
		d := inventory.Deployment{ID: "d-1", Machine: "m-1", Step: inventory.VerifyOS}
		if err := tx.PutMachine(m); err != nil {
			return err
		}
		return tx.PutDeployment(d)
	}); err != nil {
		t.Fatal(err)
	}
	key := nonce.Key("0123456789abcdef0123456789abcdef")
	e, err := deploy.New(deploy.Config{Store: db, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	web := bootPlane{engine: e, addresses: &addresses{list: neighbourTable}}.web(http.NotFoundHandler(),
		slog.New(slog.DiscardHandler))

	const form = "instance_id=d-1&hostname=m1&pub_key_rsa="
	for _, c := range []struct {
		name, id, token string
		form            string
		status          int
		most            int // bytes of the form that are read
	}{
		{"another deployment's token", "d-1", key.PhoneHomeToken("d-2"), form, http.StatusForbidden, 0},
		{"no token", "d-1", "x", form, http.StatusForbidden, 0},
		{"no such deployment", "d-2", key.PhoneHomeToken("d-2"), form, http.StatusGone, 0},
		{
			"a form without end", "d-1", key.PhoneHomeToken("d-1"), form + strings.Repeat("a", 1<<20),
			http.StatusNoContent, maxPhoneHome + 1,
		},
		{"a system's", "d-1", key.PhoneHomeToken("d-1"), form, http.StatusNoContent, len(form)},
	} {
		body := &countingReader{Reader: strings.NewReader(c.form)}
		r := httptest.NewRequest("POST", "/phone-home/"+c.id+"/"+c.token, body)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		web.ServeHTTP(w, r)
		if w.Code != c.status || body.n > c.most {
			t.Errorf("%s: %d, %d bytes of the form were read; want %d, %d at most", c.name, w.Code, body.n,
				c.status, c.most)
		}
	}
}
