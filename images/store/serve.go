package store

import (
	"net/http"
	"os"

	"github.com/pxectl/pxectl/images"
)

// Handler serves the stored bytes: GET and HEAD /images/{id}/disk.zst, with Range. Every other path is 404:
// it has no lists and no manifests. The bytes are immutable, so any cache may keep them.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/{id}/"+dataFile, s.serveData)
	return mux
}

func (s *Store) serveData(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.mu.RLock()
	info, ok := s.images[id]
	s.mu.RUnlock()
	if !ok {
		http.Error(w, "no such image", http.StatusNotFound)
		return
	}
	f, err := os.Open(s.DataPath(id))
	if err != nil {
		s.log.Error("serving an image", "id", id, "name", info.Name, "remote", r.RemoteAddr, "err", err)
		http.Error(w, "the image cannot be read; the appliance's log says why", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	h := w.Header()
	// Not application/zstd: some clients and proxies would decompress it.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", images.ETag(id))
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	st, err := f.Stat()
	if err != nil || st.Size() != info.DataSize {
		s.log.Error("serving an image: its size changed", "id", id, "name", info.Name, "remote", r.RemoteAddr,
			"want", info.DataSize, "err", err)
		http.Error(w, "the image is damaged; the appliance's log says how", http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, "", info.ImportedAt, f)
}
