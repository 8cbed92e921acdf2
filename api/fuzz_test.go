package api

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func FuzzBearer(f *testing.F) {
	for _, s := range []string{
		"Bearer abc", "bearer  x", "Bearer", "", "Basic eA==", "Bearer a b",
		"Bearer \x00", "Bearer " + strings.Repeat("y", 600),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		nonce, err := bearer(http.Header{"Authorization": {header}})
		if err != nil {
			return
		}
		if nonce == "" || len(nonce) > maxNonce || strings.ContainsAny(nonce, " \t\r\n\x00\"\\") {
			t.Errorf("bearer(%q) = %q, which cannot be a nonce", header, nonce)
		}
		if again, err := bearer(http.Header{"Authorization": {"Bearer " + nonce}}); err != nil ||
			again != nonce {
			t.Errorf("bearer(bearer(%q)) = %q, %v, want the same", header, again, err)
		}
	})
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte("id: 1\ndata: {\"seq\":1}\n\n: quiet\n\nid: 2\r\ndata:{\"seq\":2}\r\n\r\n"))
	f.Add([]byte("data: a\ndata: b\n\nevent: x\n\ndata\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		_ = readEvents(bytes.NewReader(stream), func(data []byte) error {
			if len(data) == 0 || len(data) > maxEvent {
				t.Errorf("a message of %d bytes", len(data))
			}
			return nil
		})
	})
}

func TestReadEvents(t *testing.T) {
	var got []string
	err := readEvents(
		strings.NewReader("id: 1\ndata: one\n\n: quiet\n\ndata: two\ndata:  halves\n\ndata: never ended\n"),
		func(data []byte) error {
			got = append(got, string(data))
			return nil
		})
	if want := "one|two\n halves"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("readEvents = %q, %v, want %q", got, err, want)
	}
}
