package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// agentLog stands in for the engine: it knows one nonce and one order, and keeps what it was called with.
type agentLog struct {
	registered inventory.Registration
	caller     inventory.Caller
	result     inventory.Result
	held       chan struct{} // closed when a Next is held
	released   chan error    // what ended it
	reads      string        // the boot id that a manifest was asked for with
	turns      int           // begun and not ended
	kept       int           // turns when a result came
}

func (a *agentLog) check(c inventory.Caller) error {
	if c.Nonce != "good-nonce" {
		return &inventory.Problem{Code: inventory.CodeRefused, Detail: "nonce of another boot"}
	}
	return nil
}

func (a *agentLog) Register(
	_ context.Context, c inventory.Caller, r inventory.Registration,
) (inventory.Registered, error) {
	a.registered, a.caller = r, c
	return inventory.Registered{Machine: "m-00000001", Name: "m1", Time: time.Unix(0, 0).UTC()}, a.check(c)
}

func (a *agentLog) Next(ctx context.Context, c inventory.Caller, ask inventory.Ask) (inventory.Order, error) {
	if err := a.check(c); err != nil {
		return inventory.Order{}, err
	}
	if ask.BootID != "hold" {
		return inventory.Order{ID: "o-1", Do: inventory.DoInspect}, nil
	}
	close(a.held)
	<-ctx.Done()
	a.released <- ctx.Err()
	return inventory.Order{}, ctx.Err()
}

func (a *agentLog) OrderProgress(
	_ context.Context, c inventory.Caller, order string, _ inventory.Progress,
) error {
	switch err := a.check(c); {
	case err != nil:
		return err
	case order == "o-old":
		return &inventory.Problem{Code: inventory.CodeConflict, Detail: "order o-old is no longer wanted"}
	}
	return nil
}

func (a *agentLog) OrderResult(
	_ context.Context, c inventory.Caller, order string, r inventory.Result,
) error {
	a.result, a.kept = r, a.turns
	if order == "o-broken" {
		return errors.New("store /secret/path: input/output error")
	}
	return a.check(c)
}

func (a *agentLog) ResultTurn(_ context.Context, c inventory.Caller) (int64, func(), error) {
	a.turns++
	return 4 << 10, func() { a.turns-- }, a.check(c)
}

func (a *agentLog) MayRead(_ context.Context, c inventory.Caller, bootID, image string) error {
	a.reads = bootID
	switch err := a.check(c); {
	case err != nil:
		return err
	case image != "i-mine":
		return &inventory.Problem{Code: inventory.CodeNotFound, Detail: "no such image for this machine"}
	}
	return nil
}

func manifests(id string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(`{"manifest of":"` + id + `"}`)), nil
}

func TestAgentCalls(t *testing.T) {
	good := []string{"Bearer good-nonce"}
	register := `{"mac":"52:54:00:12:34:56","boot_id":"b","version":"1","uptime_ms":5}`
	for _, tt := range []struct {
		name         string
		auth         []string
		method, path string
		body         string
		status       int
		says         string
	}{
		{
			"register", good, "POST", "/register", register, 200,
			`{"machine":"m-00000001","name":"m1","time":"1970-01-01T00:00:00Z"}`,
		},
		{"scheme in another case", []string{"bearer good-nonce"}, "POST", "/register", register, 200, "m1"},
		{
			"members of a newer agent", good, "POST", "/register",
			`{"mac":"52:54:00:12:34:56","boot_id":"b","version":"9","uptime_ms":5,"tpm":{"x":[1]}}`, 200,
			"m1",
		},
		{"no nonce", nil, "POST", "/register", register, 401, `"code":"refused"`},
		{"empty nonce", []string{"Bearer "}, "POST", "/register", register, 401, "empty"},
		{
			"two nonces",
			[]string{"Bearer good-nonce", "Bearer good-nonce"},
			"POST", "/register", register,
			401, "exactly one",
		},
		{"another scheme", []string{"Basic Z29vZA=="}, "POST", "/register", register, 401, "Bearer NONCE"},
		{
			"a nonce with a control character",
			[]string{"Bearer good\x01nonce"},
			"POST", "/register",
			register, 401, "character",
		},
		{
			"a nonce of a kilobyte",
			[]string{"Bearer " + strings.Repeat("x", 1024)},
			"POST", "/register",
			register, 401, "too long",
		},
		{"wrong nonce", []string{"Bearer bad"}, "POST", "/register", register, 401, "another boot"},
		{"no body", good, "POST", "/register", "", 422, "body"},
		{"not JSON", good, "POST", "/register", "<xml/>", 422, "body"},
		{"two values", good, "POST", "/register", register + register, 422, "more than one"},
		{"cut", good, "POST", "/register", register[:20], 422, "body"},
		{"a number for a word", good, "POST", "/register", `{"boot_id":7}`, 422, "boot_id"},
		{
			"huge registration", good, "POST", "/register",
			`{"version":"` + strings.Repeat("x", 5<<10) + `"}`, 413, "4096",
		},
		{"next", good, "POST", "/next", `{"boot_id":"b"}`, 200, `{"id":"o-1","do":"inspect"}`},
		{
			"next with a wrong nonce",
			[]string{"Bearer bad"},
			"POST", "/next", `{"boot_id":"b"}`, 401,
			"another boot",
		},
		{"progress", good, "POST", "/orders/o-1/progress", `{"phase":"write","done":1,"total":2}`, 204, ""},
		{
			"progress of an old order", good, "POST", "/orders/o-old/progress", `{"phase":"write"}`, 410,
			"no longer wanted",
		},
		{"result", good, "POST", "/orders/o-1/result", `{"boot_id":"b","error":"disk broke"}`, 204, ""},
		{
			"large result", good, "POST", "/orders/o-1/result",
			`{"log":"` + strings.Repeat("x", 3<<10) + `"}`, 204, "",
		},
		{
			"huge result", good, "POST", "/orders/o-1/result", `{"log":"` + strings.Repeat("x", 4<<10) + `"}`,
			413, "more than 4096 bytes",
		},
		{
			"huge result of nobody",
			[]string{"Bearer bad"},
			"POST", "/orders/o-1/result",
			`{"log":"` + strings.Repeat("x", 4<<10) + `"}`, 401, "another boot",
		},
		{"a result that is cut", good, "POST", "/orders/o-1/result", `{"log":"`, 422, "body"},
		{
			"a result that is nested", good, "POST", "/orders/o-1/result",
			strings.Repeat("[", 99) + strings.Repeat("]", 99), 422, "deep",
		},
		{"two results", good, "POST", "/orders/o-1/result", "{}{}", 422, "body"},
		{
			"progress in many words", good, "POST", "/orders/o-1/progress",
			`{"phase":"` + strings.Repeat("x", 4<<10) + `"}`, 413, "more than 4096 bytes",
		},
		{"our own fault stays ours", good, "POST", "/orders/o-broken/result", `{}`, 500, "log says more"},
		{"manifest", good, "GET", "/images/i-mine/manifest", "", 200, `{"manifest of":"i-mine"}`},
		{"manifest of another's image", good, "GET", "/images/i-other/manifest", "", 404, "not-found"},
		{"manifest without nonce", nil, "GET", "/images/i-mine/manifest", "", 401, "refused"},
		{"wrong method", good, "GET", "/register", "", 404, "no such call"},
		{"wrong path", good, "POST", "/orders/o-1/../../x", "{}", 404, "no such call"},
		{"unknown call", good, "POST", "/format-everything", "{}", 404, "no such call"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := api.AgentHandler(&agentLog{}, manifests, quiet)
			r := httptest.NewRequest(tt.method, "/agent/v1"+tt.path, strings.NewReader(tt.body))
			r.Header["Authorization"] = tt.auth
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			answer := w.Body.String()
			if w.Code != tt.status || !strings.Contains(answer, tt.says) ||
				strings.Contains(answer, "/secret/path") {
				t.Errorf("%s = %d %s, want %d and %q", tt.path, w.Code, answer, tt.status, tt.says)
			}
			if ct := w.Header().Get("Content-Type"); w.Code >= 400 && ct != "application/problem+json" {
				t.Errorf("Content-Type = %q, want application/problem+json", ct)
			}
		})
	}
}

// A result has its turn until it is kept, and its lists are cut before they are decoded.
func TestAResultHasItsTurn(t *testing.T) {
	a := &agentLog{}
	r := httptest.NewRequest("POST", "/agent/v1/orders/o-1/result",
		strings.NewReader(`{"report":{"disks":[`+strings.Repeat("{},", 1300)+`{}]}}`))
	r.Header.Set("Authorization", "Bearer good-nonce")
	w := httptest.NewRecorder()
	api.AgentHandler(a, manifests, quiet).ServeHTTP(w, r)
	if n := len(a.result.Report.Disks); w.Code != 204 || n != 1025 {
		t.Errorf("%d, and %d of 1301 disks were decoded, want 1025", w.Code, n)
	}
	if a.kept != 1 || a.turns != 0 {
		t.Errorf("%d turns while the result was taken, and %d after, want 1 and none", a.kept, a.turns)
	}
}

func TestAgentRegistration(t *testing.T) {
	engine := &agentLog{}
	r := httptest.NewRequest("POST", "/agent/v1/register",
		strings.NewReader(`{"mac":"52:54:00:12:34:56","boot_id":"b","version":"1","uptime_ms":5}`))
	r.Header.Set("Authorization", "Bearer good-nonce")
	r.RemoteAddr = "[::ffff:192.0.2.9]:40000" // as a dual-stack socket shows an IPv4 peer
	api.AgentHandler(engine, manifests, quiet).ServeHTTP(httptest.NewRecorder(), r)
	want := inventory.Registration{MAC: "52:54:00:12:34:56", BootID: "b", Version: "1", Uptime: 5}
	if diff := cmp.Diff(want, engine.registered); diff != "" ||
		engine.caller != (inventory.Caller{Nonce: "good-nonce", IP: "192.0.2.9"}) {
		t.Errorf("registered by %+v (-want +got):\n%s", engine.caller, diff)
	}
}

func TestAManifestIsAskedForByABoot(t *testing.T) {
	for name, ids := range map[string][]string{"": nil, "b-1": {"b-1"}} {
		engine := &agentLog{}
		r := httptest.NewRequest("GET", "/agent/v1/images/i-mine/manifest", nil)
		r.Header.Set("Authorization", "Bearer good-nonce")
		if ids != nil {
			r.Header["Pxectl-Boot-Id"] = ids
		}
		api.AgentHandler(engine, manifests, quiet).ServeHTTP(httptest.NewRecorder(), r)
		if engine.reads != name {
			t.Errorf("with the header %q the engine is asked for boot id %q", ids, engine.reads)
		}
	}
}

// TestNextEndsWithItsCaller: an agent that is gone, or a server that stops, frees the long poll.
func TestNextEndsWithItsCaller(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(hangUp, stop func())
	}{
		{"the agent is gone", func(hangUp, stop func()) { hangUp() }},
		{"the server stops", func(hangUp, stop func()) { stop() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			engine := &agentLog{held: make(chan struct{}), released: make(chan error, 1)}
			socket := shortDir(t) + "/s"
			stop := start(t, socket, api.AgentHandler(engine, manifests, quiet))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", "http://agent/agent/v1/next",
				strings.NewReader(`{"boot_id":"hold"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer good-nonce")
			answered := make(chan int, 1)
			go func() {
				resp, err := httpOver(socket).Do(req)
				if err != nil {
					answered <- 0
					return
				}
				resp.Body.Close()
				answered <- resp.StatusCode
			}()
			<-engine.held
			tt.end(cancel, stop)
			select {
			case err := <-engine.released:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Next ended with %v, want canceled", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("Next was not released")
			}
			if got := <-answered; got != 0 && got != 200 {
				t.Errorf("the agent got %d, want no answer or an order to wait", got)
			}
		})
	}
}

// A manifest without end.
type longManifest struct{ read, closed *atomic.Int64 }

func (m longManifest) Read(p []byte) (int, error) {
	m.read.Add(int64(len(p)))
	return len(p), nil
}

func (m longManifest) Close() error {
	m.closed.Add(1)
	return nil
}

// A callerThatStops takes the beginning of an answer and is gone.
type callerThatStops struct{ *httptest.ResponseRecorder }

func (callerThatStops) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

// Of a manifest, no more is read than its caller takes, however long it is.
func TestAManifestIsSentPieceByPiece(t *testing.T) {
	var read, closed atomic.Int64
	r := httptest.NewRequest("GET", "/agent/v1/images/i-mine/manifest", nil)
	r.Header.Set("Authorization", "Bearer good-nonce")
	r.Header.Set("Pxectl-Boot-Id", "b-1")
	h := api.AgentHandler(&agentLog{}, func(string) (io.ReadCloser, error) {
		return longManifest{&read, &closed}, nil
	}, quiet)
	func() {
		defer func() {
			if err := recover(); err != http.ErrAbortHandler {
				t.Errorf("the answer ends with %v, want that it is cut off", err)
			}
		}()
		h.ServeHTTP(callerThatStops{httptest.NewRecorder()}, r)
	}()
	if n := read.Load(); n > 64<<10 || closed.Load() != 1 {
		t.Errorf("%d bytes were read for a caller that took none, want 64 KiB at most; closed %d times", n,
			closed.Load())
	}
}
