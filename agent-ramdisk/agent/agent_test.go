package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

const nonce = "n0nce"

// appliance speaks the agent protocol like the real one, and fails on demand.
type appliance struct {
	*httptest.Server
	plain *httptest.Server // boot plane

	mu       sync.Mutex
	orders   []inventory.Order // one after another; the last one again and again
	results  []inventory.Result
	progress []inventory.Progress
	calls    map[string]int
	// fail may answer a call itself; n counts the calls of that path.
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
	mux.HandleFunc("GET /agent/v1/images/{id}/manifest", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Pxectl-Boot-Id") != "boot-1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write(a.manifest)
	})
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

// errRebooted is the error by which a test's last order, a reboot, ends the agent.
var errRebooted = errors.New("rebooted")

func newAgent(t *testing.T, a *appliance) *Agent {
	t.Helper()
	console := new(Console)
	console.Add("test", testWriter{t})
	return &Agent{
		Client: newClient(t, a.params()), Console: console, Log: console.Logger(),
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

// runAgent runs the agent until the final reboot order, or until its error.
func runAgent(t *testing.T, ag *Agent) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute,
		errors.New("the agent did not end"))
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
	if len(a.results) != 2 || a.results[0].Report == nil || a.results[0].BootID != "boot-1" ||
		a.results[1].Error != "" {
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
	// The appliance dies in the middle of each kind of call, then answers 503, then works.
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
	if len(a.results) != 2 || a.calls["/agent/v1/orders/o1/result"] != 4 ||
		a.calls["/agent/v1/register"] != 4 {
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
			if err := runAgent(t, newAgent(t, a)); !errors.Is(err, ErrNonce) ||
				!strings.Contains(err.Error(), "replayed") {
				t.Errorf("Run = %v, want ErrNonce with the appliance's reason", err)
			}
		})
	}
}

// An agent registers while an earlier one still counts as working: its machine lost power in mid-work.
func TestRegistersWhenItsPredecessorIsGone(t *testing.T) {
	a := newAppliance(t)
	a.orders = []inventory.Order{inspect, reboot}
	tries := 0
	a.fail = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path != "/agent/v1/register" {
			return false
		}
		if tries++; tries <= 3 {
			w.WriteHeader(http.StatusConflict)
			writeJSON(w, map[string]string{
				"code": "conflict", "detail": "another agent is at work on this machine",
			})
		}
		return tries <= 3
	}
	if err := runAgent(t, newAgent(t, a)); err != nil || tries != 4 {
		t.Errorf("Run = %v after %d tries to register, want it let in at the fourth", err, tries)
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
	_, err := newClient(t, p).register(context.Background(), inventory.Registration{})
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
	if r := a.results[0]; !strings.Contains(r.Error, "no such luck") ||
		!strings.Contains(r.Log, "agent_test.go") {
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
	p := a.params()
	p.URL = "https://" + l.Addr().String()
	ag.Client = newClient(t, p)
	go func() {
		// The appliance hangs up on callers at first; then the same key answers at that address.
		for range 3 {
			if conn, err := l.Accept(); err == nil {
				conn.Close()
			}
		}
		srv := &http.Server{Handler: a.Config.Handler, TLSConfig: a.TLS, ReadHeaderTimeout: time.Second}
		t.Cleanup(func() { _ = srv.Close() })
		_ = srv.ServeTLS(l, "", "")
	}()
	if err := runAgent(t, ag); err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, p Params) *Client {
	t.Helper()
	c, err := NewClient(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
