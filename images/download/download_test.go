package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var file = bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB

// patient is Options for servers that answer, impatient for those that do not.
func patient(c *http.Client) Options {
	return Options{Client: c, Window: time.Minute, Least: 1 << 10, Attempts: 4, Backoff: time.Millisecond}
}

func impatient(c *http.Client) Options {
	o := patient(c)
	o.Window = time.Second
	return o
}

func serve(w http.ResponseWriter, r *http.Request, etag string) {
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
}

// cutter answers as announced and hangs up after n bytes of the body.
type cutter struct {
	http.ResponseWriter
	n int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(c.n, len(p))])
	if c.n -= n; c.n == 0 || err != nil {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestDownload(t *testing.T) {
	tests := []struct {
		name    string
		handler func(w http.ResponseWriter, r *http.Request, try int)
		want    string // of the error; "" for the whole file
		tries   int
	}{
		{"plain", func(w http.ResponseWriter, r *http.Request, _ int) { serve(w, r, `"1"`) }, "", 1},
		{"cut seven times", func(w http.ResponseWriter, r *http.Request, try int) {
			if try <= 7 {
				w = &cutter{w, 100 << 10}
			}
			serve(w, r, `"1"`)
		}, "", 8},
		{"cut, without validators", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w = &cutter{w, 100 << 10}
			}
			serve(w, r, "")
		}, "", 2},
		{"busy, then not", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			serve(w, r, "")
		}, "", 2},
		{
			"always busy", func(w http.ResponseWriter, _ *http.Request,
				_ int,
			) {
				w.WriteHeader(http.StatusTooManyRequests)
			}, "429", 4,
		},
		{"not there", func(w http.ResponseWriter, r *http.Request, _ int) { http.NotFound(w, r) }, "404", 1},
		{
			"cut at once, always",
			func(w http.ResponseWriter, r *http.Request, _ int) { serve(&cutter{w, 1}, r, `"1"`) },
			"attempt 4, the last one", 4,
		},
		{"changed: ETag", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w = &cutter{w, 5000}
			}
			serve(w, r, fmt.Sprintf(`"%d"`, try))
		}, `ETag was "1" and is "2"`, 2},
		{"changed: Last-Modified", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w = &cutter{w, 5000}
			}
			http.ServeContent(w, r, "", time.Unix(int64(1e9+try), 0), bytes.NewReader(file))
		}, "Last-Modified was", 2},
		{"changed: length", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				serve(&cutter{w, 5000}, r, "")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file[:len(file)/2]))
		}, "its length was 1048576 and is 524288", 2},
		{"changed: shorter than what was read", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				serve(&cutter{w, 5000}, r, "")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file[:10]))
		}, "shorter than the 5000 bytes", 2},
		{"cannot resume", func(w http.ResponseWriter, r *http.Request, _ int) {
			r.Header.Del("Range")
			serve(&cutter{w, 5000}, r, "")
		}, "cannot resume", 2},
		{"lies about the length", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w.Header().Set("Content-Length", "2000000")
				_, _ = w.Write(file)
				return
			}
			serve(w, r, "")
		}, "announced 2000000 bytes, but its file ends after 1048576", 2},
		{"another range", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w = &cutter{w, 5000}
			} else {
				r.Header.Set("Range", "bytes=7-")
			}
			serve(w, r, "")
		}, "from byte 7 when asked for byte 5000", 2},
		{"silent in the middle", func(w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(file)))
				_, _ = w.Write(file[:5000])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return
			}
			serve(w, r, "")
		}, "", 2},
		{
			"silent from the beginning",
			func(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() },
			"did not answer within", 1,
		},
		{"trickles", func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Content-Range",
				strings.Replace(r.Header.Get("Range"), "=", " ", 1)+
					fmt.Sprintf("%d/%d", len(file)-1, len(file)))
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusPartialContent)
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(len(file)))
			}
			for r.Context().Err() == nil {
				_, _ = w.Write(file[:1])
				_ = http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}, "too slow to go on with (attempt 4", 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tt.handler(w, r, int(tries.Add(1)))
			}))
			defer srv.Close()
			options := patient(srv.Client())
			if strings.HasPrefix(tt.name, "silent") || tt.name == "trickles" {
				options = impatient(srv.Client())
			}
			got, err := all(t.Context(), srv.URL+"/os.raw", options)
			switch {
			case tt.want == "" && (err != nil || !bytes.Equal(got, file)):
				t.Errorf("%d bytes, %v; want the file of %d", len(got), err, len(file))
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%d bytes, %v; want an error with %q", len(got), err, tt.want)
			}
			if int(tries.Load()) != tt.tries {
				t.Errorf("%d requests, want %d", tries.Load(), tt.tries)
			}
		})
	}
}

func all(ctx context.Context, url string, opt Options) ([]byte, error) {
	s, err := Open(ctx, url, opt)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(s)
}

// A slow reader is not the server's fault.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		serve(w, r, "")
	}))
	defer srv.Close()
	s, err := Open(t.Context(), srv.URL, impatient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Size() != int64(len(file)) {
		t.Errorf("Size = %d, want %d", s.Size(), len(file))
	}
	if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // well over Window
	rest, err := io.ReadAll(s)
	if err != nil || len(rest) != len(file)-100 || tries.Load() != 1 {
		t.Errorf("%d bytes, %v, in %d requests; want the rest in one", len(rest), err, tries.Load())
	}
}

// A resumed download goes on at the mirror where it began, and asks the first address again when that mirror
// refuses.
func TestRedirects(t *testing.T) {
	var asked, mirror atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("/mirror/%d", asked.Add(1)), http.StatusFound)
	})
	mux.HandleFunc("/mirror/{n}", func(w http.ResponseWriter, r *http.Request) {
		switch n := mirror.Add(1); {
		case n <= 2:
			serve(&cutter{w, 5000}, r, `"1"`)
		case r.PathValue("n") == "1":
			w.WriteHeader(http.StatusForbidden) // the address aged
		default:
			serve(w, r, `"1"`)
		}
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	got, err := all(t.Context(), srv.URL, patient(srv.Client()))
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes, %v; want the file", len(got), err)
	}
	if asked.Load() != 2 {
		t.Errorf("the address was asked %d times, want 2", asked.Load())
	}
}

func TestEndsWithItsContext(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(file[:10])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := all(ctx, srv.URL, Options{Client: srv.Client()}); !errors.Is(err, why) {
		t.Errorf("err = %v, want %v", err, why)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Open(t.Context(), "http://"+l.Addr().String()+"/os.raw", Options{}); err == nil ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("Open = %v, want connection refused at once", err)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, h := range []string{"bytes 5-19/20", "bytes 5-19/*", "bytes */20", "", "bytes 9-5/3"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		start, size, err := contentRange(h)
		if err == nil && (start < 0 || size >= 0 && start >= size) {
			t.Errorf("contentRange(%q) = %d, %d", h, start, size)
		}
		sizeIn(h)
	})
}

// TestHTTPSStaysHTTPS: a download that begins with https does not end in the clear, unless a checksum checks
// it.
func TestHTTPSStaysHTTPS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("image"))
	}))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/here" {
			_, _ = w.Write([]byte("image"))
			return
		}
		to := plain.URL
		if r.URL.Path == "/round" {
			to = "/here"
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	defer secure.Close()
	for _, c := range []struct {
		path    string
		checked bool
		want    string
	}{
		{"/away", false, "which is not https: give the file's checksum"},
		{"/away", true, ""},
		{"/round", false, ""},
	} {
		s, err := Open(t.Context(), secure.URL+c.path, Options{
			Client: secure.Client(), Checked: c.checked, Attempts: 1,
		})
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			s.Close()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s, checked %v: Open = %q, want %q", c.path, c.checked, got, c.want)
		}
	}
}
