package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// When a download is cut, the CLI says so, says where, and goes on.
func TestDownloadsGoOnAndSaySo(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	tries := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.Header().Set("Content-Length", "1048576")
			_, _ = w.Write(file[:512<<10])
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	}))
	defer srv.Close()
	var notes []string
	src, size, err := (&cli{}).openSource(t.Context(), srv.URL+"/os.raw", false, func(text string) {
		notes = append(notes, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := io.ReadAll(src)
	if err != nil || !bytes.Equal(got, file) || size != int64(len(file)) {
		t.Errorf("%d bytes, %v, announced as %d; want the file of %d", len(got), err, size, len(file))
	}
	want := "the server announced 1048576 bytes and ended the connection after 524288; going on at 512 KiB in "
	if len(notes) != 1 || !strings.HasPrefix(notes[0], want) {
		t.Errorf("notes are %q, want one that begins %q", notes, want)
	}
}

// An address that gives no file says who asked, and what to try.
func TestAddressesThatGiveNothing(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	_, _, err := (&cli{}).openSource(t.Context(), srv.URL+"/os.raw", false, nil)
	if err == nil || !strings.Contains(err.Error(), "404") ||
		!strings.HasPrefix(hintOf(err), "the file is fetched by this host") {
		t.Errorf("%v with the hint %q, want the status and what to try", err, hintOf(err))
	}
}
