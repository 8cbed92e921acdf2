package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

var quiet = slog.New(slog.DiscardHandler)

// serve runs a server over a real Unix socket and returns a client of it and the socket.
func serve(t *testing.T, fleet api.Fleet) (*api.Client, string) {
	t.Helper()
	dir := shortDir(t)
	images, err := store.Open(filepath.Join(dir, "images"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "run", "s")
	start(t, socket, api.NewServer(api.Config{
		Fleet: fleet, Images: images, Version: "test",
		Log: quiet,
	}).Handler())
	return newClient(t, socket), socket
}

// start serves h at socket until the returned function, or the test, ends it.
func start(t *testing.T, socket string, h http.Handler) (stop func()) {
	t.Helper()
	l, err := api.ListenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, h, quiet) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve = %v, want nil", err)
			}
		case <-time.After(time.Minute):
			t.Error("Serve did not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func httpOver(socket string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}},
	}
}

// ask makes a plain request, as a script would.
func ask(t *testing.T, socket, method, path, body string) (status int, header http.Header, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://pxectl"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := httpOver(socket).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   inventory.Code
		detail string
		hint   string
	}{
		{
			"invalid", &inventory.Problem{Code: inventory.CodeInvalid, Detail: "no", Hint: "do"}, 422,
			inventory.CodeInvalid, "no", "do",
		},
		{
			"not found", &inventory.Problem{Code: inventory.CodeNotFound, Detail: "no"}, 404,
			inventory.CodeNotFound, "no", "",
		},
		{
			"conflict", &inventory.Problem{Code: inventory.CodeConflict, Detail: "no"}, 409,
			inventory.CodeConflict, "no", "",
		},
		{
			"refused", &inventory.Problem{Code: inventory.CodeRefused, Detail: "no"}, 403,
			inventory.CodeRefused, "no", "",
		},
		{"bmc", &inventory.Problem{Code: inventory.CodeBMC, Detail: "no"}, 502, inventory.CodeBMC, "no", ""},
		{
			"timeout", &inventory.Problem{Code: inventory.CodeTimeout, Detail: "no"}, 504,
			inventory.CodeTimeout, "no", "",
		},
		{
			"internal", &inventory.Problem{Code: inventory.CodeInternal, Detail: "no"}, 500,
			inventory.CodeInternal, "no", "",
		},
		{
			"wrapped", fmt.Errorf("outside: %w",
				&inventory.Problem{Code: inventory.CodeConflict, Detail: "no"}), 409, inventory.CodeConflict,
			"no", "",
		},
		{"a plain error", errors.New("disk on fire"), 500, inventory.CodeInternal, "disk on fire", ""},
		{
			"a deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), 504, inventory.CodeTimeout,
			"wait: context deadline exceeded", "",
		},
		{
			"a BMC's own error",
			fmt.Errorf("m1: %w", &power.Error{
				Target: "192.0.2.7:623", Doing: "power off", Err: power.ErrSilent, Hint: "ping it",
			}),
			502, inventory.CodeBMC, "m1: power off 192.0.2.7:623: no answer", "ping it",
		},
		{"a code that we do not know", &inventory.Problem{Code: "new", Detail: "no"}, 500, "new", "no", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fleet := apitest.New(inventory.Machine{Name: "m1"})
			fleet.Fail("Approve", tt.err)
			c, socket := serve(t, fleet)
			status, header, answer := ask(t, socket, "POST", "/v1/machines/m1/approve", "")
			var got api.Problem
			if err := json.Unmarshal([]byte(answer), &got); err != nil {
				t.Fatalf("answer %q: %v", answer, err)
			}
			want := api.Problem{
				Title: http.StatusText(tt.status), Status: tt.status, Code: tt.code, Detail: tt.detail,
				Hint: tt.hint,
			}
			if diff := cmp.Diff(want, got); diff != "" || status != tt.status {
				t.Errorf("status %d, want %d; problem (-want +got):\n%s", status, tt.status, diff)
			}
			if ct := header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("Content-Type = %q, want application/problem+json", ct)
			}
			_, err := c.Approve(t.Context(), "m1", deploy.Approval{})
			p, ok := errors.AsType[*inventory.Problem](err)
			if !ok || p.Code != tt.code || p.Detail != tt.detail || p.Hint != tt.hint {
				t.Errorf("client's error = %#v, want the same problem", err)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	_, socket := serve(t, apitest.New(inventory.Machine{Name: "m1"}))
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"unknown path", "GET", "/v1/nodes", "", 404, "no such path: GET /v1/nodes"},
		{"unknown machine", "GET", "/v1/machines/m9", "", 404, `no machine \"m9\"`},
		{"unknown action", "POST", "/v1/machines/m1/power", `{"action":"explode"}`, 422, "body.action"},
		{"unknown member", "PATCH", "/v1/machines/m1", `{"nmae":"x"}`, 422, "body.nmae: unexpected property"},
		{"wrong type", "PATCH", "/v1/machines/m1", `{"name":7}`, 422, "body.name: expected string"},
		{"image missing", "POST", "/v1/machines/m1/deploy", `{}`, 422, "image"},
		{"no JSON", "POST", "/v1/machines/m1/power", `action=on`, 400, `"code":"invalid"`},
		{"no body", "POST", "/v1/machines/m1/power", "", 400, `"code":"invalid"`},
		{
			"body too large", "PATCH", "/v1/machines/m1", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`,
			413, `"code":"invalid"`,
		},
		{
			"body too large for a deployment", "POST", "/v1/machines/m1/deploy",
			`{"image":"` + strings.Repeat("x", 2<<20) + `"}`, 413, `"code":"invalid"`,
		},
		{"unknown query", "GET", "/v1/machines?stat=failed", "", 422, "stat"},
		{"boot device other", "PUT", "/v1/machines/m1/boot", `{"device":"other"}`, 422, "can only be read"},
		{"events after a word", "GET", "/v1/events?after=x", "", 422, `after \"x\"`},
		{"events of nobody", "GET", "/v1/events?machine=m9", "", 404, "m9"},
		{"events tail of zero", "GET", "/v1/events?tail=0", "", 422, "1 to"},
		{"import without a name", "POST", "/v1/images", "xxx", 422, "name is missing"},
		{"import with a bad size", "POST", "/v1/images?name=a&size=-1", "xxx", 422, "size"},
		{"import with a bad checksum", "POST", "/v1/images?name=a&sha256=7", "xxx", 422, "64 hex digits"},
		{"console without upgrade", "GET", "/v1/machines/m1/console", "", 426, "pxectl console m1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, header, answer := ask(t, socket, tt.method, tt.path, tt.body)
			if status != tt.status || !strings.Contains(answer, tt.says) {
				t.Errorf("%s %s = %d %s, want %d and %q", tt.method, tt.path, status, answer, tt.status,
					tt.says)
			}
			if ct := header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("Content-Type = %q, want application/problem+json", ct)
			}
		})
	}
}

func TestSecretsStay(t *testing.T) {
	fleet := apitest.New(inventory.Machine{
		Name: "m1",
		BMC: inventory.BMC{
			Address:  "192.0.2.7",
			User:     "admin",
			Password: inventory.Sealed("sealed words"),
			Kg:       inventory.Sealed("sealed words"),
		},
	})
	_, socket := serve(t, fleet)
	ask(t, socket, "POST", "/v1/machines/m1/deploy", `{"image":"debian-12","user_data":"IyFzZWNyZXQ="}`)
	for _, path := range []string{
		"/v1/machines", "/v1/machines/m1", "/v1/deployments",
		"/v1/deployments/m1",
	} {
		status, _, answer := ask(t, socket, "GET", path, "")
		if status != 200 || strings.Contains(answer, "password") || strings.Contains(answer, `"kg"`) ||
			strings.Contains(answer, `"secret"`) || strings.Contains(answer, "#!secret") {
			t.Errorf("GET %s = %d %s, want 200 and nothing sealed", path, status, answer)
		}
	}
}

func TestNobodyIsLetInUnnamed(t *testing.T) {
	s := api.NewServer(api.Config{Fleet: apitest.New(), Version: "test", Log: quiet})
	for path, want := range map[string]int{
		"/v1/machines": 401, "/openapi.json": 401, "/healthz": 200,
		"/readyz": 200,
	} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("GET %s from nobody = %d, want %d", path, w.Code, want)
		}
	}
	r := httptest.NewRequest("GET", "/v1/machines", nil)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r.WithContext(api.WithActor(r.Context(), "token:ci")))
	if w.Code != 200 {
		t.Errorf("GET /v1/machines from an actor = %d, want 200", w.Code)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	fleet := apitest.New()
	c, _ := serve(t, panicking{fleet})
	_, err := c.Machines(t.Context())
	if p, ok := errors.AsType[*inventory.Problem](err); !ok || p.Code != inventory.CodeInternal {
		t.Errorf("Machines of a panicking fleet = %v, want an internal problem", err)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("Version after a panic = %v, want an answer", err)
	}
}

type panicking struct{ *apitest.Fleet }

func (panicking) Machines() []inventory.Machine { panic("a bug") }

func TestOpenAPI(t *testing.T) {
	_, socket := serve(t, apitest.New())
	status, _, answer := ask(t, socket, "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(answer), &doc); err != nil || status != 200 {
		t.Fatalf("GET /openapi.json = %d, %v", status, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("openapi = %q, want 3.1.x", doc.OpenAPI)
	}
	for path, methods := range map[string][]string{
		"/v1/machines": {"get", "post"}, "/v1/machines/{ref}": {"get", "patch", "delete"},
		"/v1/machines/{ref}/approve": {"post"},
		"/v1/machines/{ref}/power":   {"get", "post"}, "/v1/machines/{ref}/boot": {"get", "put"},
		"/v1/machines/{ref}/deploy": {"post"},
		"/v1/machines/{ref}/why":    {"get"}, "/v1/machines/{ref}/console": {"get"},
		"/v1/deployments": {"get"}, "/v1/deployments/{ref}": {"get"},
		"/v1/deployments/{ref}/cancel": {"post"}, "/v1/deployments/{ref}/retry": {"post"},
		"/v1/images": {"get", "post"}, "/v1/images/{ref}": {"get", "delete"},
		"/v1/images/{ref}/verify": {"post"}, "/v1/events": {"get"}, "/v1/version": {"get"},
	} {
		for _, m := range methods {
			if doc.Paths[path][m] == nil {
				t.Errorf("openapi.json lacks %s %s", m, path)
			}
		}
	}
}

func TestReady(t *testing.T) {
	why := errors.New("dhcp: waiting for eno1")
	h := api.NewServer(api.Config{
		Fleet: apitest.New(), Version: "test", Log: quiet,
		Ready: func() error { return why },
	}).Handler()
	socket := filepath.Join(shortDir(t), "s")
	start(t, socket, h)
	if status, _, answer := ask(t, socket, "GET", "/readyz", ""); status != 503 ||
		!strings.Contains(answer, why.Error()) {
		t.Errorf("GET /readyz = %d %s, want 503 and the reason", status, answer)
	}
}

func newHandler(fleet api.Fleet) http.Handler {
	return api.NewServer(api.Config{Fleet: fleet, Version: "test", Log: quiet}).Handler()
}

func newClient(t *testing.T, socket string) *api.Client {
	t.Helper()
	c, err := api.NewClient(socket)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shortDir is a directory whose name leaves room for a socket's path; that of t.TempDir does not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
