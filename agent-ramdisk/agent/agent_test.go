package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/inventory"
)

const nonce = "n0nce"

// appliance speaks the agent protocol as the real one does, and fails on demand.
type appliance struct {
	*httptest.Server
	plain *httptest.Server // boot plane

	mu       sync.Mutex
	orders   []inventory.Order // given one after the other, the last one again and again
	results  []inventory.Result
	progress []inventory.Progress
	calls    map[string]int
	// fail may answer a call by itself; n counts the calls of that path.
	fail func(w http.ResponseWriter, r *http.Request, n int) bool

	manifest, data []byte
}

func newAppliance(t *testing.T) *appliance {
	a := &appliance{calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/register", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, inventory.Registered{Machine: "m-1", Name: "m1", Time: time.Now()})
	})
	mux.HandleFunc("POST /agent/v1/next", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.orders) == 0 {
			writeJSON(w, inventory.Order{Do: inventory.DoWait})
			return
		}
		writeJSON(w, a.orders[0])
		a.orders = a.orders[1:]
	})
	mux.HandleFunc("POST /agent/v1/orders/{id}/result", func(w http.ResponseWriter, r *http.Request) {
		var res inventory.Result
		if err := json.NewDecoder(r.Body).Decode(&res); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.results = append(a.results, res)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /agent/v1/orders/{id}/progress", func(w http.ResponseWriter, r *http.Request) {
		var p inventory.Progress
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.progress = append(a.progress, p)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /agent/v1/images/{id}/manifest", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(a.manifest) })
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && r.Header.Get("Authorization") != "Bearer "+nonce {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.mu.Lock()
		a.calls[r.URL.Path]++
		n, fail := a.calls[r.URL.Path], a.fail
		a.mu.Unlock()
		if fail == nil || !fail(w, r, n) {
			mux.ServeHTTP(w, r)
		}
	})
	mux.HandleFunc("GET /disk.zst", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(a.data)))
	})
	a.Server = httptest.NewTLSServer(counted)
	t.Cleanup(a.Close)
	a.plain = httptest.NewServer(counted)
	t.Cleanup(a.plain.Close)
	return a
}

func writeJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func (a *appliance) params() Params {
	return Params{URL: a.URL, Nonce: nonce, Pin: sha256.Sum256(a.Certificate().RawSubjectPublicKeyInfo)}
}

// stop is how a test ends an agent: the last order is a reboot, and this is what it comes to.
var errRebooted = errors.New("rebooted")

func newAgent(t *testing.T, a *appliance) *Agent {
	t.Helper()
	console := new(Console)
	console.Add("test", testWriter{t})
	return &Agent{
		Client: NewClient(a.params()), Console: console, Log: console.Logger(),
		Registration: inventory.Registration{MAC: "52:54:00:00:00:01", BootID: "boot-1"},
		Uptime:       func() time.Duration { return time.Second },
		SetClock:     func(time.Time) error { return nil },
		Registered:   func() {},
		Settle:       func(context.Context) {},
		Report:       func() *inventory.Report { return &inventory.Report{Kernel: "6.1"} },
		Disks:        func() ([]inventory.Disk, error) { return nil, nil },
		Backoff:      time.Millisecond,
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// runAgent runs it until the final reboot order, or the error it ends with.
func runAgent(t *testing.T, ag *Agent) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("the agent did not end"))
	defer cancel()
	rebooted := make(chan struct{}, 1)
	ag.Restart = func(string) error {
		rebooted <- struct{}{}
		cancel()
		return errRebooted
	}
	err := ag.Run(ctx)
	select {
	case <-rebooted:
		return nil
	default:
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

var (
	inspect = inventory.Order{ID: "o1", Do: inventory.DoInspect}
	reboot  = inventory.Order{ID: "end", Do: inventory.DoReboot}
)

func TestInspectAndReboot(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{{Do: inventory.DoWait}, inspect, reboot}
	if err := runAgent(t, newAgent(t, a)); err != nil {
		t.Fatal(err)
	}
	if len(a.results) != 2 || a.results[0].Report == nil || a.results[0].BootID != "boot-1" || a.results[1].Error != "" {
		t.Errorf("results = %+v", a.results)
	}
}

func TestRepeatedOrderIsNotDoneAgain(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, inspect, reboot}
	ag := newAgent(t, a)
	reports := 0
	ag.Report = func() *inventory.Report { reports++; return &inventory.Report{} }
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if reports != 1 || len(a.results) != 3 {
		t.Errorf("%d reports, %d results, want 1 and 3", reports, len(a.results))
	}
}

func TestLostAnswers(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, reboot}
	// The appliance dies in the middle of each kind of call, then says 503, then works.
	a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch n {
		case 1, 2:
			if strings.HasSuffix(r.URL.Path, "/next") {
				return n == 1 && hangUp(w)
			}
			return hangUp(w)
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	if err := runAgent(t, newAgent(t, a)); err != nil {
		t.Fatal(err)
	}
	if len(a.results) != 2 || a.calls["/agent/v1/orders/o1/result"] != 4 || a.calls["/agent/v1/register"] != 4 {
		t.Errorf("%d results, calls %v", len(a.results), a.calls)
	}
}

func hangUp(w http.ResponseWriter) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
	return true
}

func TestDeadNonce(t *testing.T) {
	for _, at := range []string{"/agent/v1/register", "/agent/v1/next", "/agent/v1/orders/o1/result"} {
		t.Run(at, func(t *testing.T) {
			a := newAppliance(t)
			a.orders = []inventory.Order{inspect, reboot}
			a.fail = func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.URL.Path == at {
					w.WriteHeader(http.StatusUnauthorized)
					writeJSON(w, map[string]string{"code": "nonce", "detail": "replayed"})
				}
				return r.URL.Path == at
			}
			if err := runAgent(t, newAgent(t, a)); !errors.Is(err, ErrNonce) || !strings.Contains(err.Error(), "replayed") {
				t.Errorf("Run = %v, want ErrNonce with the appliance's reason", err)
			}
		})
	}
}

func TestUnwantedResult(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, reboot}
	a.fail = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		gone := strings.HasSuffix(r.URL.Path, "/o1/result")
		if gone {
			w.WriteHeader(http.StatusGone)
		}
		return gone
	}
	if err := runAgent(t, newAgent(t, a)); err != nil {
		t.Fatal(err)
	}
	if len(a.results) != 1 {
		t.Errorf("%d results, want that of the reboot alone", len(a.results))
	}
}

func TestWrongKeyGetsNothing(t *testing.T) {
	a := newAppliance(t)
	p := a.params()
	p.Pin[0] ^= 1
	_, err := NewClient(p).register(context.Background(), inventory.Registration{})
	if err == nil || !strings.Contains(err.Error(), "not the pinned one") || len(a.calls) > 0 {
		t.Errorf("register with a wrong pin = %v after calls %v", err, a.calls)
	}
}

func TestPanicIsAResult(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, reboot}
	ag := newAgent(t, a)
	ag.Report = func() *inventory.Report { panic("no such luck") }
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if r := a.results[0]; !strings.Contains(r.Error, "no such luck") || !strings.Contains(r.Log, "agent_test.go") {
		t.Errorf("result = %+v, want the panic and where it was", r)
	}
}

func TestServerRestarts(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, reboot}
	ag := newAgent(t, a)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Nobody listens at first; then the same key answers at that address.
	address := l.Addr().String()
	_ = l.Close()
	p := a.params()
	p.URL = "https://" + address
	ag.Client = NewClient(p)
	go func() {
		time.Sleep(50 * time.Millisecond)
		l, err := net.Listen("tcp", address)
		if err != nil {
			return
		}
		srv := &http.Server{Handler: a.Config.Handler, TLSConfig: a.TLS, ReadHeaderTimeout: time.Second}
		t.Cleanup(func() { _ = srv.Close() })
		_ = srv.ServeTLS(l, "", "")
	}()
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
}

// withImage gives the appliance an image of three chunks, one of them zero, and the agent a disk.
func withImage(t *testing.T, a *appliance, ag *Agent) (inventory.Order, string) {
	t.Helper()
	raw := make([]byte, 2*images.ChunkSize+1<<20)
	for i := range images.ChunkSize {
		raw[i] = byte(i * i >> 7)
	}
	raw[len(raw)-1] = 1
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &images.Manifest{
		Format: images.Format, Name: "test", RawSize: int64(len(raw)), SectorSize: 512, ChunkSize: images.ChunkSize,
		RawSHA256: images.HashChunk(raw), HashName: images.HashName,
	}
	for off := 0; off < len(raw); off += images.ChunkSize {
		chunk := raw[off:min(off+images.ChunkSize, len(raw))]
		frame := enc.EncodeAll(chunk, nil)
		m.Chunks = append(m.Chunks, images.Chunk{
			Offset: int64(len(a.data)), Length: int64(len(frame)),
			Sum: images.HashChunk(frame), Hash: images.HashChunk(chunk), Zero: images.IsZero(chunk),
		})
		a.data = append(a.data, frame...)
	}
	a.data = append(a.data, images.SeekTable(m.Chunks)...)
	m.DataSize = int64(len(a.data))
	if a.manifest, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	ag.Dev = t.TempDir()
	path := filepath.Join(ag.Dev, "vda")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d := inventory.Disk{Name: "vda", Serial: "S1", Bytes: size}
	ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
	id := d.Identity()
	return inventory.Order{
		ID: "w", Do: inventory.DoWriteImage, Target: &id,
		Image: &inventory.OrderImage{ID: images.ID(a.manifest), URL: a.plain.URL + "/disk.zst"},
	}, path
}

func TestWriteImage(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	order, path := withImage(t, a, ag)
	prepare := inventory.Order{ID: "p", Do: inventory.DoPrepareDisk, Target: order.Target}
	// The boot plane is cut in the middle of answers, three times.
	a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.URL.Path != "/disk.zst" || n > 3 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		return hangUp(w)
	}
	a.orders = []inventory.Order{prepare, order, reboot}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	w := a.results[1].Written
	if a.results[0].Error != "" || w == nil || w.Chunks != 3 || w.ReadBack != 3 || w.Sent == 0 {
		t.Fatalf("results = %+v", a.results)
	}
	got, err := os.ReadFile(path)
	m, e := images.Parse(a.manifest)
	if err != nil || e != nil || images.HashChunk(got[:m.RawSize]) != m.RawSHA256 {
		t.Error("the disk does not hold the image")
	}
}

func TestWriteImageFails(t *testing.T) {
	for _, tt := range []struct {
		name, want, hint string
		spoil            func(*appliance, *inventory.Order)
	}{
		{"corrupted chunk", "chunk 0", "", func(a *appliance, _ *inventory.Order) { a.data[100] ^= 1 }},
		{"other manifest", "its sha256 is", "", func(_ *appliance, o *inventory.Order) {
			o.Image = &inventory.OrderImage{ID: strings.Repeat("0", 64), URL: o.Image.URL}
		}},
		{"image is gone", "404", "", func(_ *appliance, o *inventory.Order) {
			o.Image = &inventory.OrderImage{ID: o.Image.ID, URL: o.Image.URL + "x"}
		}},
		{"disk is gone", "not there any more", "inspect", func(_ *appliance, o *inventory.Order) {
			o.Target = &inventory.DiskIdentity{Name: "vda", Serial: "S2", Bytes: o.Target.Bytes}
		}},
		{"no disk named", "names no disk", "", func(_ *appliance, o *inventory.Order) { o.Target = nil }},
		{"unknown mode", "unknown mode", "older than the appliance", func(_ *appliance, o *inventory.Order) { o.Mode = "sideways" }},
		{"unknown proof", "unknown way to verify", "older than the appliance", func(_ *appliance, o *inventory.Order) { o.Verify = "by eye" }},
		{"unknown order", "unknown order", "older than the appliance", func(_ *appliance, o *inventory.Order) { o.Do = "juggle" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			order, _ := withImage(t, a, ag)
			tt.spoil(a, &order)
			a.orders = []inventory.Order{order, reboot}
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			r := a.results[0]
			if !strings.Contains(r.Error, tt.want) || !strings.Contains(r.Hint, tt.hint) || !strings.Contains(r.Log, "failed after") {
				t.Errorf("result = %+v, want an error with %q, a hint with %q and the log", r, tt.want, tt.hint)
			}
		})
	}
}

// TestModes: what lies on the disk already is used as the order says, and prepare-disk leaves it then.
func TestModes(t *testing.T) {
	for _, tt := range []struct {
		mode          string
		kept, fetched int
	}{
		{inventory.ModeAuto, 2, 1}, // the first chunk has the labels
		{"", 2, 1},
		{inventory.ModeDelta, 2, 1},
		{inventory.ModeFull, 0, 2},
	} {
		t.Run("mode "+tt.mode, func(t *testing.T) {
			a := newAppliance(t)
			ag := newAgent(t, a)
			write, path := withImage(t, a, ag)
			// The appliance has just been started again, and does not know its images yet.
			a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
				refuse := r.URL.Path == "/disk.zst" && n < 3
				if refuse {
					w.WriteHeader(http.StatusNotFound)
				}
				return refuse
			}
			first := write
			first.ID = "first"
			write.Mode = tt.mode
			prepare := inventory.Order{ID: "p", Do: inventory.DoPrepareDisk, Target: write.Target, Image: write.Image, Mode: tt.mode}
			a.orders = []inventory.Order{first, prepare, write, reboot}
			if err := runAgent(t, ag); err != nil {
				t.Fatal(err)
			}
			w := a.results[2].Written
			if a.results[0].Error != "" || w == nil || w.Kept != tt.kept || w.Fetched != tt.fetched || w.ReadBack != 3 {
				t.Fatalf("results = %+v, written %+v; want %d chunks kept and %d fetched", a.results, w, tt.kept, tt.fetched)
			}
			got, err := os.ReadFile(path)
			m, e := images.Parse(a.manifest)
			if err != nil || e != nil || images.HashChunk(got[:m.RawSize]) != m.RawSHA256 {
				t.Error("the disk does not hold the image")
			}
		})
	}
}

// TestPrepareRefuses: an image that cannot go to the disk is found out before anything is cleared.
func TestPrepareRefuses(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	write, path := withImage(t, a, ag)
	text := []byte("an old system")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	d := inventory.Disk{Name: "vda", Serial: "S1", Bytes: 4 << 20}
	ag.Disks = func() ([]inventory.Disk, error) { return []inventory.Disk{d}, nil }
	id := d.Identity()
	a.orders = []inventory.Order{{ID: "p", Do: inventory.DoPrepareDisk, Target: &id, Image: write.Image}, reboot}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); !strings.Contains(a.results[0].Error, "image test needs") || err != nil || string(got[:len(text)]) != string(text) {
		t.Errorf("result = %+v; the disk begins with %q", a.results[0], got[:len(text)])
	}
}

func TestCancelledOrder(t *testing.T) {
	a := newAppliance(t)
	ag := newAgent(t, a)
	order, _ := withImage(t, a, ag)
	a.orders = []inventory.Order{order, reboot}
	// The boot plane gives one chunk and then nothing; the first report of progress is told that it is over.
	a.fail = func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/progress"):
			w.WriteHeader(http.StatusGone)
			return true
		case r.URL.Path == "/disk.zst" && n > 1:
			return hangUp(w)
		}
		return false
	}
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
	if r := a.results[0]; !strings.Contains(r.Error, "does not know or want this") {
		t.Errorf("result = %+v", r)
	}
}
