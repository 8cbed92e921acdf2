package download

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
)

// connect makes one request for the rest of the file. It goes to the target of the last redirect until that
// refuses, since a signed address expires.
func (s *Stream) connect() error {
	resp, conn, err := s.get(s.resolved)
	if err == nil && s.resolved != s.source && refusal(resp.StatusCode) {
		conn.cancel()
		resp.Body.Close()
		s.resolved = s.source
		resp, conn, err = s.get(s.source)
	}
	if err != nil {
		return err
	}
	v, err := s.checkAnswer(resp)
	if err != nil {
		conn.cancel()
		resp.Body.Close()
		return err
	}
	if s.at == 0 {
		s.first = v
	}
	s.resolved = resp.Request.URL.String()
	s.conn = conn
	return nil
}

func refusal(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden ||
		status == http.StatusNotFound || status == http.StatusGone
}

func (s *Stream) get(address string) (*http.Response, *connection, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	c := &connection{cancel: cancel}
	c.watchdog = time.AfterFunc(s.opt.Window,
		bug.Recovering(nil, "end a download that stalled", func() { c.fired.Store(true); cancel() }))
	defer c.watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel()
		return nil, nil, permanentError{err}
	}
	if s.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.at))
	}
	resp, err := s.opt.Client.Do(req)
	if err != nil {
		cancel()
		if c.fired.Load() {
			err = fmt.Errorf("the server did not answer within %s", s.opt.Window)
		}
		return nil, nil, err
	}
	c.body = resp.Body
	return resp, c, nil
}

// checkAnswer checks that the answer is the file, or the rest of the file, that the download began with.
func (s *Stream) checkAnswer(resp *http.Response) (version, error) {
	v := version{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"), resp.ContentLength}
	permanent := func(format string, args ...any) error { return permanentError{fmt.Errorf(format, args...)} }
	switch code := resp.StatusCode; {
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return v, busyError{resp.Status}
	case code == http.StatusRequestedRangeNotSatisfiable && s.at > 0:
		if size, ok := sizeIn(resp.Header.Get("Content-Range")); ok && size == s.at && size != s.first.size {
			return v, permanent("the server announced %d bytes, but its file ends after %d: "+
				"it lied, or the file was cut there", s.first.size, size)
		}
		return v, permanent("the file on the server is shorter than the %d bytes that were read of it: "+
			"it was changed; begin anew", s.at)
	case s.at == 0 && code == http.StatusOK:
		return v, nil
	case s.at > 0 && code == http.StatusOK:
		if err := s.changed(v); err != nil {
			return v, err
		}
		return v, permanent("the connection was cut and the server cannot resume (no Range); " +
			"download the file with something else and import that")
	case s.at > 0 && code == http.StatusPartialContent:
	default:
		return v, permanent("the server answered %s", resp.Status)
	}
	start, size, err := contentRange(resp.Header.Get("Content-Range"))
	switch {
	case err != nil:
		return v, permanentError{err}
	case start != s.at:
		return v, permanent("the server sends from byte %d when asked for byte %d", start, s.at)
	}
	if size >= 0 && v.size >= 0 && v.size != size-start {
		return v, permanent("the server announces %d bytes from byte %d of a file of %d", v.size, start, size)
	}
	v.size = size
	return v, s.changed(v)
}

// changed compares a later answer with the first one.
func (s *Stream) changed(v version) error {
	differs := func(what, was, is string) error {
		return permanentError{
			fmt.Errorf("the file on the server changed during the download: %s was %s and is %s; begin anew",
				what, was, is),
		}
	}
	switch {
	case v.etag != "" && s.first.etag != "" && v.etag != s.first.etag:
		return differs("ETag", s.first.etag, v.etag)
	case v.modified != "" && s.first.modified != "" && v.modified != s.first.modified:
		return differs("Last-Modified", s.first.modified, v.modified)
	case v.size >= 0 && s.first.size >= 0 && v.size != s.first.size:
		return differs("its length", strconv.FormatInt(s.first.size, 10), strconv.FormatInt(v.size, 10))
	}
	return nil
}

// contentRange reads "bytes 5-19/20" or "bytes 5-19/*", whose size is -1 (RFC 9110 section 14.4).
func contentRange(h string) (start, size int64, err error) {
	bad := fmt.Errorf("the server's Content-Range is %.80q, want bytes FIRST-LAST/SIZE", h)
	rest, ok := strings.CutPrefix(h, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, bad
	}
	start, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size = -1
	var err3 error
	if total != "*" {
		size, err3 = strconv.ParseInt(total, 10, 64)
	}
	if errors.Join(err1, err2, err3) != nil || start < 0 || last < start || total != "*" && last >= size {
		return 0, 0, bad
	}
	return start, size, nil
}

// sizeIn reads the "bytes */20" of an answer 416.
func sizeIn(h string) (int64, bool) {
	total, ok := strings.CutPrefix(h, "bytes */")
	size, err := strconv.ParseInt(total, 10, 64)
	return size, ok && err == nil && size >= 0
}
