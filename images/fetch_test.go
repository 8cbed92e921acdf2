package images

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestFetch(t *testing.T) {
	data := []byte("0123456789abcdefghij")
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", ETag("id1"))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	// cutTo answers as announced and hangs up after n bytes.
	cutTo := func(w http.ResponseWriter, r *http.Request, n int) {
		rec := httptest.NewRecorder()
		serve(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:n])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	tests := []struct {
		name    string
		handler func(w http.ResponseWriter, r *http.Request, try int)
		want    string // of the error; "" for success
		tries   int
		stalls  bool
	}{
		{"plain", func(w http.ResponseWriter, r *http.Request, _ int) { serve(w, r) }, "", 1, false},
		{"cut and resumed", func(w http.ResponseWriter, r *http.Request, try int) {
			if try < 4 {
				cutTo(w, r, 2)
			}
			serve(w, r)
		}, "", 4, false},
		{"busy, then not", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			serve(w, r)
		}, "", 2, false},
		{"stalled, then not", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				<-r.Context().Done()
				return
			}
			serve(w, r)
		}, "", 2, true},
		{
			"always cut at once", func(w http.ResponseWriter, r *http.Request, _ int) { cutTo(w, r, 0) },
			"unexpected EOF", 3, false,
		},
		{
			"always stalled", func(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() },
			"sends nothing", 3, true,
		},
		{
			"no Range", func(w http.ResponseWriter, r *http.Request,
				_ int,
			) {
				r.Header.Del("Range")
				serve(w, r)
			}, "must support Range", 1, false,
		},
		{
			"another range", func(w http.ResponseWriter, r *http.Request,
				_ int,
			) {
				r.Header.Set("Range", "bytes=0-9")
				serve(w, r)
			}, "Content-Range", 1, false,
		},
		{
			"gone", func(w http.ResponseWriter, _ *http.Request,
				_ int,
			) {
				w.WriteHeader(http.StatusNotFound)
			}, "404", 2, false,
		},
		{"not there yet", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			serve(w, r)
		}, "", 2, false},
		{"another image", func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("ETag", `"id2"`)
			w.Header().Set("Content-Range", "bytes 5-14/20")
			w.WriteHeader(http.StatusPartialContent)
		}, "another image", 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tt.handler(w, r, int(tries.Add(1)))
			}))
			defer srv.Close()
			f := Fetcher{
				Client: srv.Client(), URL: srv.URL + "/disk.zst", ID: "id1", Stall: time.Minute, Attempts: 3,
				Refusals: 2, Backoff: time.Millisecond,
			}
			if tt.stalls {
				f.Stall = time.Second
			}
			got, err := f.Fetch(t.Context(), nil, 5, 10)
			switch {
			case tt.want == "" && (err != nil || string(got) != "56789abcde"):
				t.Errorf("Fetch = %q, %v; want 56789abcde", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Fetch = %q, %v; want an error with %q", got, err, tt.want)
			}
			if int(tries.Load()) != tt.tries {
				t.Errorf("%d requests, want %d", tries.Load(), tt.tries)
			}
		})
	}
}

// TestFetchTrickle: a byte now and then does not count as progress.
func TestFetchTrickle(t *testing.T) {
	var tries atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/1000000")
		w.WriteHeader(http.StatusPartialContent)
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}))
	defer srv.Close()
	f := Fetcher{
		Client: srv.Client(), URL: srv.URL, Stall: 500 * time.Millisecond, Attempts: 2,
		Backoff: time.Millisecond,
	}
	if _, err := f.Fetch(t.Context(), nil, 0, 1<<20); err == nil ||
		!strings.Contains(err.Error(), "next to nothing") || tries.Load() != 2 {
		t.Errorf("Fetch = %v after %d tries, want it to give up after 2", err, tries.Load())
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the order was withdrawn")
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	f := Fetcher{Client: srv.Client(), URL: srv.URL}
	if _, err := f.Fetch(ctx, nil, 0, 1); err != why { // the very cause
		t.Errorf("Fetch = %v, want %v", err, why)
	}
}
