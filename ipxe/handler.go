package ipxe

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"

	"github.com/pxectl/pxectl/internal/bug"
)

// A Decider says what the machine that sent p should boot. server is the address at which the
// machine reached us. It is called on every request and must not block.
type Decider func(ctx context.Context, p Params, server netip.AddrPort) Boot

// Config connects the handler with the rest of the appliance.
type Config struct {
	Decide Decider
	// Ramdisk is the path of "vmlinuz" or "initrd" for a GOARCH.
	Ramdisk func(goarch, name string) (path string, ok bool)
	// Observe receives every request when it has ended. Optional.
	Observe func(Request)
	Log     *slog.Logger
}

// A Request is one answered request of the boot plane, for the machine's timeline.
type Request struct {
	At        time.Time // when it arrived
	Took      time.Duration
	Remote    netip.AddrPort
	Local     netip.AddrPort
	Method    string
	Path      string
	UserAgent string
	Params    *Params // of /boot.ipxe
	Boot      *Boot   // the answer to it
	Status    int
	Sent      int64 // bytes of the body
	Want      int64 // Content-Length; a GET with Sent below it was cut off
}

// NBPPath is where the handler serves a boot program.
func NBPPath(name string) string { return "/nbp/" + name }

// RamdiskPath is where the handler serves a file of the ramdisk.
func RamdiskPath(goarch, name string) string { return "/ramdisk/" + goarch + "/" + name }

type handler struct{ Config }

// Handler serves the boot plane: the scripts, the network boot programs (below /nbp/ and at the root, for
// UEFI HTTP boot) and the ramdisk. Every other path is 404.
func Handler(c Config) http.Handler { return handler{c} }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := Request{
		At:     time.Now(),
		Remote: addrPort(r.RemoteAddr), Local: localAddr(r),
		Method: r.Method, Path: r.URL.Path, UserAgent: r.UserAgent(),
	}
	var answered httpsnoop.Metrics
	answered.CaptureMetrics(w, func(w http.ResponseWriter) {
		if h.answer(w, r, &seen) != nil && answered.Code == 0 {
			problem(w, http.StatusInternalServerError, "internal error")
		}
	})
	seen.Took, seen.Status, seen.Sent = answered.Duration, answered.Code, answered.Written
	seen.Want, _ = strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	if h.Observe != nil {
		h.Observe(seen)
	}
}

// answer answers a request. It returns an error only after a panic.
func (h handler) answer(w http.ResponseWriter, r *http.Request, seen *Request) (err error) {
	defer bug.Return(h.Log, "boot plane: answer a request", &err, func() []any {
		return []any{"path", r.URL.Path, "remote", r.RemoteAddr}
	})
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, "only GET and HEAD")
		return nil
	}
	h.route(w, r, seen)
	return nil
}

// route matches whole paths. http.ServeMux would redirect unclean ones, and firmware does not follow a
// redirect.
func (h handler) route(w http.ResponseWriter, r *http.Request, seen *Request) {
	p := r.URL.Path
	if p == "/boot.ipxe" {
		h.boot(w, r, seen)
		return
	}
	// iPXE looks for autoexec.ipxe beside the program, wherever that came from.
	if p == "/autoexec.ipxe" || p == "/nbp/autoexec.ipxe" || p == "/start.ipxe" {
		script(w, r, Autoexec(seen.Local))
		return
	}
	if rest, ok := strings.CutPrefix(p, "/ramdisk/"); ok {
		arch, name, _ := strings.Cut(rest, "/")
		h.ramdisk(w, r, arch, name)
		return
	}
	dir, file := path.Split(p)
	if prog, ok := programs[file]; ok && (dir == "/" || dir == "/nbp/") {
		w.Header().Set("ETag", prog.etag)
		// EDK2 takes the type from the name's ending, newer versions from this header.
		w.Header().Set("Content-Type", "application/octet-stream")
		if path.Ext(p) == ".efi" {
			w.Header().Set("Content-Type", "application/efi")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(prog.bytes))
		return
	}
	problem(w, http.StatusNotFound, "no such file")
}

func (h handler) boot(w http.ResponseWriter, r *http.Request, seen *Request) {
	params, err := ParseParams(parseQuery(r.URL.RawQuery))
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	seen.Params = &params
	b := h.Decide(r.Context(), params, seen.Local)
	if b.Action == Agent && b.Kernel == "" && b.Initrd == "" {
		base := "http://" + seen.Local.String()
		b.Kernel = base + RamdiskPath(params.GoArch(), "vmlinuz")
		b.Initrd = base + RamdiskPath(params.GoArch(), "initrd")
	}
	text, err := Script(seen.Local, params, b)
	if err != nil {
		h.Log.Error("boot plane: no script", "mac", params.MAC, "remote", seen.Remote, "err", err)
		b = Boot{Action: Wait, Reason: "the appliance has no valid boot script for this machine; see its log"}
		text, _ = Script(seen.Local, params, b)
	}
	seen.Boot = &b
	h.Log.Info("boot script", "mac", params.MAC, "remote", seen.Remote, "action", b.Action,
		"reason", b.Reason,
		"uuid", params.UUID, "arch", params.Arch, "platform", params.Platform)
	script(w, r, text)
}

// parseQuery reads a query as iPXE writes it: a blank is %20, a plus sign is itself, and a semicolon
// separates nothing. iPXE before 2021 leaves both unescaped.
func parseQuery(raw string) url.Values {
	// ParseQuery leaves out broken pairs.
	q, _ := url.ParseQuery(strings.NewReplacer("+", "%2B", ";", "%3B").Replace(raw))
	return q
}

func (h handler) ramdisk(w http.ResponseWriter, r *http.Request, arch, name string) {
	if (arch != "amd64" && arch != "arm64") || (name != "vmlinuz" && name != "initrd") {
		problem(w, http.StatusNotFound, "no such file")
		return
	}
	file, ok := h.Ramdisk(arch, name)
	if !ok {
		problem(w, http.StatusNotFound, "no ramdisk for "+arch+"; run `pxectl ramdisk build`")
		return
	}
	f, err := os.Open(file)
	if err != nil {
		h.Log.Error("boot plane: ramdisk", "remote", r.RemoteAddr, "arch", arch, "file", name, "err", err)
		problem(w, http.StatusNotFound, "the ramdisk for "+arch+" cannot be read")
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		h.Log.Error("boot plane: ramdisk is not a regular file", "remote", r.RemoteAddr, "arch", arch,
			"file", file, "err", err)
		problem(w, http.StatusNotFound, "the ramdisk for "+arch+" cannot be read")
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size()))
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", st.ModTime(), f)
}

// script answers with a text that is made for this request. ServeContent sets Content-Length; without it,
// iPXE's download is very slow.
func script(w http.ResponseWriter, r *http.Request, text []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

func problem(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)+1))
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// localAddr is our address on the connection, which the machine can certainly reach.
func localAddr(r *http.Request) netip.AddrPort {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addrPort(a.String())
	}
	return netip.AddrPort{}
}

func addrPort(s string) netip.AddrPort {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
