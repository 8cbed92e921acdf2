package apitest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

// FuzzAgentCalls makes the calls of strangers and misbehaving agents to the engine. Whatever the call and its
// credentials, there is an answer, it is bounded, and it is never an internal error.
func FuzzAgentCalls(f *testing.F) {
	const mac = "52:54:00:00:00:01"
	const boot = "11111111-2222-4333-8444-555555555555"
	for _, seed := range []struct{ method, path, body string }{
		{"POST", "/register", `{"mac":"` + mac + `","boot_id":"` + boot + `","version":"1","uptime_ms":5}`},
		{"POST", "/register", `{"mac":"` + strings.Repeat("5", 4000) + `","boot_id":""}`},
		{"POST", "/next", `{"boot_id":"` + boot + `"}`},
		{"POST", "/next", `{"boot_id":""}`},
		{
			"POST", "/orders/inspect-1/progress",
			`{"boot_id":"` + boot + `","phase":"write","done":1,"total":2}`,
		},
		{
			"POST", "/orders/inspect-1/result",
			`{"boot_id":"` + boot +
				`","report":{"disks":[{"name":"vda","bytes":1}],` +
				`"bmc":{"address":"10.0.0.9:1"},"problems":["x"]}}`,
		},
		{
			"POST", "/orders/d-1-1-1/result",
			`{"boot_id":"` + boot + `","error":"` + strings.Repeat("e", 3000) + `"}`,
		},
		{"GET", "/images/0123/manifest", ""},
		{"DELETE", "/../../etc/passwd", "\x00"},
		{"GET", "//" + strings.Repeat("\xe5", 4000), ""},
	} {
		for who := range byte(3) {
			f.Add(seed.method, seed.path, seed.body, who)
		}
	}
	f.Fuzz(func(t *testing.T, method, path, body string, who byte) {
		e := newEngine(t).Fleet.(*deploy.Engine)
		handler := api.AgentHandler(e, func(string) (io.ReadCloser, error) {
			return nil, &inventory.Problem{Code: inventory.CodeNotFound, Detail: "no such image"}
		}, slog.New(slog.DiscardHandler))
		nonce := e.IssueBoot(mac).Nonce
		call := func(ctx context.Context, method, path, body string, key byte) *httptest.ResponseRecorder {
			r, err := http.NewRequestWithContext(ctx, method, "https://appliance/agent/v1"+path,
				strings.NewReader(body))
			if err != nil {
				t.Skip()
			}
			r.RemoteAddr = "192.0.2.100:4000"
			r.Header.Set("Authorization", "Bearer "+nonce)
			if key > 0 {
				public := make(ed25519.PublicKey, ed25519.PublicKeySize)
				public[0] = key
				r.TLS = &tls.ConnectionState{
					PeerCertificates: []*x509.Certificate{
						{RawSubjectPublicKeyInfo: public, PublicKey: public},
					},
				}
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w
		}
		if got := call(t.Context(), "POST", "/register",
			`{"mac":"`+mac+`","boot_id":"`+boot+`","version":"1","uptime_ms":5}`,
			1); got.Code != http.StatusOK {
			t.Fatalf("the agent's registration = %d %s", got.Code, got.Body)
		}
		// A poll without an order is held for 20 s. The answer to one that hangs up is not looked at.
		ctx, hangUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer hangUp()
		got := call(ctx, method, path, body, who%3)
		switch {
		case ctx.Err() != nil:
		case got.Code >= 500:
			t.Errorf("%s %s = %d %s", method, path, got.Code, got.Body)
		case got.Body.Len() > 4<<10:
			t.Errorf("%s %s answers %d bytes", method, path, got.Body.Len())
		case who%3 != 1 && got.Code < 300:
			t.Errorf("%s %s by another key = %d %s", method, path, got.Code, got.Body)
		}
	})
}
