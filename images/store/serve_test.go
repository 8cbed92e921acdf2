package store

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/pxectl/pxectl/images"
)

func TestHandler(t *testing.T) {
	s := open(t, t.TempDir())
	info := add(t, s, "x", disk(3*images.ChunkSize, 1))
	data, err := os.ReadFile(s.DataPath(info.ID))
	if err != nil {
		t.Fatal(err)
	}
	path := "/images/" + info.ID + "/disk.zst"
	tests := []struct {
		name, method, path, rng string
		code                    int
		body                    []byte
	}{
		{"whole", "GET", path, "", 200, data},
		{"head", "HEAD", path, "", 200, nil},
		{"range", "GET", path, "bytes=100-199", 206, data[100:200]},
		{"end", "GET", path, "bytes=-17", 206, data[len(data)-17:]},
		{"past the end", "GET", path, "bytes=999999999-", 416, nil},
		{
			"another image", "GET", "/images/" + string(bytes.Repeat([]byte("0"), 64)) + "/disk.zst", "", 404,
			nil,
		},
		{"manifest", "GET", "/images/" + info.ID + "/manifest.json", "", 404, nil},
		{"list", "GET", "/images/", "", 404, nil},
		{"directory", "GET", "/images/" + info.ID + "/", "", 404, nil},
		{"by name", "GET", "/images/x/disk.zst", "", 404, nil},
		{"up", "GET", "/images/%2e%2e/disk.zst", "", 404, nil},
		{"put", "PUT", path, "", 405, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(tt.method, tt.path, nil)
			if tt.rng != "" {
				req.Header.Set("Range", tt.rng)
			}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, req)
			if rec.Code != tt.code {
				t.Fatalf("%s %s = %d, want %d", tt.method, tt.path, rec.Code, tt.code)
			}
			if tt.code/100 != 2 {
				return
			}
			if tt.body != nil && !bytes.Equal(rec.Body.Bytes(), tt.body) {
				t.Errorf("%d bytes that differ from the %d wanted", rec.Body.Len(), len(tt.body))
			}
			if got := rec.Header().Get("ETag"); got != images.ETag(info.ID) {
				t.Errorf("ETag %s, want %s", got, images.ETag(info.ID))
			}
		})
	}
}

// images.Fetcher reads what Handler serves.
func TestFetcherReadsHandler(t *testing.T) {
	s := open(t, t.TempDir())
	info := add(t, s, "x", disk(3*images.ChunkSize, 1))
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	_, m, err := s.Manifest(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := images.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	f := images.Fetcher{
		Client: &http.Client{}, URL: srv.URL + "/images/" + info.ID + "/disk.zst", ID: info.ID,
	}
	for _, c := range m.Chunks {
		frame, err := f.Fetch(t.Context(), nil, c.Offset, c.Length)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dec.DecodeChunk(nil, frame, c); err != nil {
			t.Error(err)
		}
	}
}
