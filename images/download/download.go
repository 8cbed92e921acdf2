package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/pxectl/pxectl/internal/backoff"
	"github.com/pxectl/pxectl/internal/sleep"
)

// Options set the patience of a download. The zero value suits servers on the Internet.
type Options struct {
	// Checked says that the caller compares the file with a checksum. Without one, https must not lead to
	// http: anybody on the way could replace the file.
	Checked bool

	Client *http.Client // without a Timeout; nil: one that does not undo the server's compression

	// A connection that brings less than Least bytes in Window of waiting is closed, so that a server that
	// sends a byte a second does not keep us for ever. Only time inside Read counts: the reader of the stream
	// may be slower than the server.
	Window time.Duration // 0 is 30 s
	Least  int64         // 0 is 64 KiB

	Attempts int           // in a row without Least new bytes, before giving up; 0 is 6
	Backoff  time.Duration // before the second attempt, doubled up to 15 s; 0 is 500 ms

	// Retry, when set, is called for each broken attempt, with the offset, the reason, and the wait before
	// the next one.
	Retry func(at int64, why error, wait time.Duration)
}

// A Stream is a file that is being downloaded.
type Stream struct {
	ctx    context.Context
	opt    Options
	source string
	first  version // of the file, as the first answer had it
	at     int64   // bytes that Read has returned
	failed int     // attempts in a row
	wait   backoff.Backoff

	conn     *connection // nil between two attempts
	resolved string      // the target of the redirects: another mirror may have another build
	err      error       // final
}

// version is what an answer's header says about the file, to compare later answers with.
type version struct {
	etag, modified string
	size           int64 // -1 when the server does not say
}

// connection is one answer of the server.
type connection struct {
	body     io.ReadCloser
	cancel   context.CancelFunc
	watchdog *time.Timer // armed while a Read waits
	fired    atomic.Bool
	waited   time.Duration // in Reads, since moved was 0
	moved    int64         // in this window
	total    int64
}

// permanentError is an error that another attempt would meet again.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// busyError is the answer of a server that may succeed soon.
type busyError struct{ status string }

func (e busyError) Error() string { return "the server answered " + e.status }

// Open requests the file. An unreachable address is an error at once; Open asks a busy server again.
// Cancelling ctx ends the stream too.
func Open(ctx context.Context, source string, opt Options) (*Stream, error) {
	if opt.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableCompression = true // checksums are of the stored file
		opt.Client = &http.Client{Transport: transport}
	}
	opt.Window = or(opt.Window, 30*time.Second)
	opt.Least = or(opt.Least, 64<<10)
	opt.Attempts = or(opt.Attempts, 6)
	opt.Backoff = or(opt.Backoff, 500*time.Millisecond)
	if !opt.Checked {
		client := *opt.Client
		client.CheckRedirect = staysSecure(client.CheckRedirect)
		opt.Client = &client
	}
	s := &Stream{
		ctx: ctx, opt: opt, source: source, resolved: source,
		wait: backoff.Backoff{First: opt.Backoff, Most: 15 * time.Second},
	}
	for s.conn == nil {
		err := s.connect()
		if err == nil {
			break
		}
		if _, busy := errors.AsType[busyError](err); !busy {
			return nil, s.wrap(err)
		}
		if err := s.again(err); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// staysSecure refuses redirects from https to http, and otherwise calls then, which may be nil.
func staysSecure(then func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if last := via[len(via)-1]; last.URL.Scheme == "https" && req.URL.Scheme != "https" {
			return permanentError{
				fmt.Errorf("%s leads on to %s, which is not https: give the file's checksum (--sha256 or "+
					"--sha512), or another address", last.URL.Redacted(), req.URL.Redacted()),
			}
		}
		if then != nil {
			return then(req, via)
		}
		if len(via) >= 10 { // as net/http
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

// Size is the length of the file, 0 when the server does not say it.
func (s *Stream) Size() int64 { return max(s.first.size, 0) }

// Read reads on, over as many connections as needed.
func (s *Stream) Read(p []byte) (int, error) {
	for len(p) > 0 && s.err == nil {
		if s.conn == nil {
			if err := s.connect(); err != nil {
				s.err = s.again(err)
				continue
			}
		}
		n, err := s.conn.read(p, s.opt)
		s.at += int64(n)
		if s.conn.total >= s.opt.Least {
			s.failed = 0
			s.wait.Reset()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && (s.first.size < 0 || s.at == s.first.size):
			s.err = io.EOF
		default:
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the server ended the connection before the end of the file")
				if s.first.size >= 0 {
					err = fmt.Errorf("the server announced %d bytes and ended the connection after %d",
						s.first.size, s.at)
				}
			}
			s.hangUp()
			s.err = s.again(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, s.err
}

// Close ends the download.
func (s *Stream) Close() error {
	s.hangUp()
	if s.err == nil {
		s.err = errors.New("closed")
	}
	return nil
}

func (s *Stream) hangUp() {
	if s.conn != nil {
		s.conn.cancel()
		s.conn.body.Close()
		s.conn = nil
	}
}

func (s *Stream) wrap(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if _, ok := errors.AsType[*url.Error](err); ok && s.at == 0 {
		return err // names the address itself
	}
	return fmt.Errorf("fetch %s at byte %d: %w", s.source, s.at, err)
}

// again waits before the next attempt, or returns the error that ends the download.
func (s *Stream) again(err error) error {
	_, final := errors.AsType[permanentError](err)
	if s.failed++; final || s.ctx.Err() != nil {
		return s.wrap(err)
	}
	if s.failed >= s.opt.Attempts {
		return s.wrap(fmt.Errorf("%w (attempt %d, the last one)", err, s.failed))
	}
	wait := s.wait.Next()
	if s.opt.Retry != nil {
		s.opt.Retry(s.at, err, wait)
	}
	if sleep.For(s.ctx, wait) != nil {
		return context.Cause(s.ctx)
	}
	return nil
}

// read reads once, under the rule of Window and Least.
func (c *connection) read(p []byte, opt Options) (int, error) {
	began := time.Now()
	c.watchdog.Reset(opt.Window - c.waited)
	n, err := c.body.Read(p)
	inTime := c.watchdog.Stop()
	c.waited += time.Since(began)
	c.total += int64(n)
	switch c.moved += int64(n); {
	case !inTime || c.fired.Load():
		// The watchdog fired: keep the bytes read, and connect again.
		return n, fmt.Errorf("the server sent %d bytes in %s, which is too slow to go on with", c.moved,
			opt.Window)
	case c.moved >= opt.Least:
		c.waited, c.moved = 0, 0
	}
	return n, err
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
