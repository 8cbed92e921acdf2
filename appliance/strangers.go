package appliance

import (
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"
)

// strangersBody is how long a request's body may take. That includes a body that its handler has not read:
// net/http reads the rest.
const strangersBody = 30 * time.Second

// forStrangers bounds what anybody on the provisioning network can hold open: a body that is announced and
// never sent, and the connection of a request that was refused.
func forStrangers(h http.Handler, bodyTime time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		h.ServeHTTP(closing(w), r)
	})
}

// cleanPath removes // and /./ from paths, which firmware sends. http.ServeMux would redirect instead, and
// firmware does not follow.
func cleanPath(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := path.Clean("/" + r.URL.Path)
		if clean != "/" && strings.HasSuffix(r.URL.Path, "/") { // else the mux redirects to the path with it
			clean += "/"
		}
		if clean != r.URL.Path {
			u := *r.URL
			u.Path, u.RawPath = clean, ""
			r = r.Clone(r.Context())
			r.URL = &u
		}
		h.ServeHTTP(w, r)
	})
}

// closing ends the connection after an error.
func closing(w http.ResponseWriter) http.ResponseWriter {
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(status int) {
				if status >= 400 {
					w.Header().Set("Connection", "close")
				}
				next(status)
			}
		},
	})
}
