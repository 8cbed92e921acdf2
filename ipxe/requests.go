package ipxe

import (
	"errors"
	"io"
	"net/http"
)

// watch serves h, and marks connections whose request has arrived whole. A request with a body is whole when
// the handler has read the body.
func (l *limitedListener) watch(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			l.arrived(r.RemoteAddr)
		} else {
			r = r.WithContext(r.Context()) // a copy: net/http ends a request by the kind of body that it has
			r.Body = &watchedBody{r.Body, func() { l.arrived(r.RemoteAddr) }}
		}
		h.ServeHTTP(w, r)
	})
}

// A watchedBody calls ended when all of it has been read.
type watchedBody struct {
	io.ReadCloser
	ended func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended()
	}
	return n, err
}

// arrived marks a connection, by its remote address, as one whose request is whole.
func (l *limitedListener) arrived(remote string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.clients[addrPort(remote).Addr()] {
		if c.remote == remote {
			c.asked.Store(done)
		}
	}
}
