package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pxectl/pxectl/internal/backoff"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/internal/sleep"
)

// A Fetcher reads ranges of one image's disk.zst over HTTP. Several goroutines can use it at once. Set its
// fields before the first use.
type Fetcher struct {
	Client *http.Client // must have no Timeout of its own: a slow link is no error
	URL    string       // of disk.zst
	ID     string       // when set, an answer with another ETag is refused

	Stall    time.Duration // close a connection that moves less than slowest in this time; 0 is 15 s
	Attempts int           // without progress, before giving up; 0 is 6
	Refusals int           // 4xx in a row before giving up, since a starting server may refuse; 0 is 8
	Backoff  time.Duration // wait before the second attempt, doubled up to 10 s; 0 is 250 ms
}

// slowest is the number of bytes that must arrive within Stall.
const slowest = 16 << 10

// Fetch reads exactly length bytes at offset into dst, which it enlarges when needed. After a cut or stalled
// answer it goes on where that stopped. A permanent failure (a server without Range, another image) is an
// error at once.
func (f *Fetcher) Fetch(ctx context.Context, dst []byte, offset, length int64) ([]byte, error) {
	if offset < 0 || length <= 0 {
		return nil, fmt.Errorf("fetch %s: range of %d bytes at %d", f.URL, length, offset)
	}
	if int64(cap(dst)) < length {
		dst = make([]byte, length)
	}
	dst = dst[:length]
	attempts, wait := or(f.Attempts, 6), backoff.Backoff{
		First: or(f.Backoff, 250*time.Millisecond), Most: 10 * time.Second,
	}
	var done int64
	for failed, refused := 0, 0; ; {
		n, err := f.once(ctx, dst[done:], offset+done)
		done += n
		if err == nil {
			return dst, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var final permanentError
		if n >= slowest || n > 0 && !errors.Is(err, errStalled) {
			failed = 0
			wait.Reset()
		}
		if errors.Is(err, errRefused) {
			refused++
		} else {
			refused = 0
		}
		if failed++; failed >= attempts || refused >= or(f.Refusals, 8) || errors.As(err, &final) {
			return nil, fmt.Errorf("fetch %s bytes %d-%d: %w", f.URL, offset+done, offset+length-1, err)
		}
		if sleep.For(ctx, wait.Next()) != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// permanentError is an error that another attempt would meet again.
type permanentError struct{ error }

var (
	errStalled = errors.New("the server sends nothing, or next to nothing,")
	errRefused = errors.New("the server refuses")
)

// once makes one request for len(dst) bytes at offset and returns how many of them arrived.
func (f *Fetcher) once(ctx context.Context, dst []byte, offset int64) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := or(f.Stall, 15*time.Second)
	watchdog := time.AfterFunc(stall,
		bug.Recovering(nil, "end a fetch that stalled", func() {
			cancel(fmt.Errorf("%w for %s", errStalled, stall))
		}))
	defer watchdog.Stop()

	last := offset + int64(len(dst)) - 1
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return 0, permanentError{err}
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, last))
	req.Header.Set("Accept-Encoding", "identity") // ranges count stored bytes
	resp, err := f.Client.Do(req)
	if err != nil {
		return 0, stalledOr(ctx, err)
	}
	defer resp.Body.Close()
	if err := f.checkAnswer(resp, offset, last); err != nil {
		return 0, err
	}

	var n, seen int64
	for n < int64(len(dst)) {
		m, err := resp.Body.Read(dst[n:])
		n += int64(m)
		if n-seen >= slowest {
			seen = n
			watchdog.Reset(stall)
		}
		if err != nil && n < int64(len(dst)) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, stalledOr(ctx, err)
		}
	}
	return n, nil
}

// checkAnswer compares the answer's header with the request.
func (f *Fetcher) checkAnswer(resp *http.Response, offset, last int64) error {
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent:
	case code == http.StatusOK:
		return permanentError{errors.New("the server answers 200 with the whole file; it must support Range")}
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return fmt.Errorf("the server answers %s", resp.Status)
	case code >= 400:
		return fmt.Errorf("%w: %s", errRefused, resp.Status)
	default:
		return permanentError{fmt.Errorf("the server answers %s", resp.Status)}
	}
	if tag := resp.Header.Get("ETag"); f.ID != "" && tag != "" && tag != ETag(f.ID) {
		return permanentError{
			fmt.Errorf("the server has another image there: ETag %.80s, want %s", tag, ETag(f.ID)),
		}
	}
	var first, end int64
	cr := resp.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(cr, "bytes %d-%d/", &first, &end); err != nil || first != offset || end != last {
		return permanentError{
			fmt.Errorf("the server answers with Content-Range %.80q, want bytes %d-%d", cr, offset, last),
		}
	}
	if want := last - offset + 1; resp.ContentLength >= 0 && resp.ContentLength != want {
		return permanentError{fmt.Errorf("the server announces %d bytes, want %d", resp.ContentLength, want)}
	}
	return nil
}

// ETag is the entity tag of an image's disk.zst.
func ETag(id string) string { return `"` + id + `"` }

// stalledOr returns the watchdog's reason in place of the "context canceled" that the watchdog caused.
func stalledOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
