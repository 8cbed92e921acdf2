package appliance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// agentCertificate makes a key of the kind that signer makes, and a certificate for it.
func agentCertificate(t *testing.T, signer func() (public, private any)) *tls.Certificate {
	t.Helper()
	public, private := signer()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

func ed25519Key() (public, private any) {
	p, k, _ := ed25519.GenerateKey(rand.Reader)
	return p, k
}

func ecdsaKey() (public, private any) {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &k.PublicKey, k
}

// A wireAgent calls the agents' port as an agent does, with a client certificate of its own or none.
type wireAgent struct {
	t     *testing.T
	http  *http.Client
	nonce string
}

func newWireAgent(t *testing.T, nonce string, show *tls.Certificate) wireAgent {
	config := &tls.Config{
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	if show != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return show, nil
		}
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return wireAgent{t, &http.Client{Transport: transport, Timeout: 40 * time.Second}, nonce}
}

// call makes a call, with boot ids in its header if any are given. It returns the answer and its status, 0
// when the connection was refused.
func (a wireAgent) call(method, path string, in any, bootIDs ...string) (int, string) {
	a.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, "https://10.77.0.1:8443/agent/v1"+path,
		bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.nonce)
	for _, id := range bootIDs {
		req.Header.Add(inventory.BootIDHeader, id)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

// An agentCall is a call that an agent makes after its registration.
type agentCall struct {
	method, path string
	in           any
	header       []string // boot ids
}

func callsOf(bootID string) []agentCall {
	return []agentCall{
		{"POST", "/next", inventory.Ask{BootID: bootID}, nil},
		{"POST", "/orders/inspect-1/progress", inventory.Progress{BootID: bootID}, nil},
		{
			"POST", "/orders/inspect-1/result",
			inventory.Result{BootID: bootID, Report: &inventory.Report{}},
			nil,
		},
		{"GET", "/images/0123/manifest", nil, []string{bootID}},
	}
}

// The agent's key is not enough: each call must name the boot that registered. The timeline shows who calls
// with another one.
func TestEachCallNamesItsBoot(t *testing.T) {
	testnet.Need(t)
	s := newSite(t)
	const bootID = "11111111-2222-4333-8444-555555555555"
	agent := newWireAgent(t, s.engine.IssueBoot(clientMAC).Nonce, agentCertificate(t, ed25519Key))
	if code, answer := agent.call("POST", "/register",
		inventory.Registration{MAC: clientMAC, BootID: bootID}); code != 200 {
		t.Fatalf("registration = %d %s", code, answer)
	}
	refusals := func() (n int) {
		t.Helper()
		events, err := s.engine.Events(0, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Data[inventory.DataIntruder] == "10.77.0.1" &&
				strings.Contains(e.Text, "does not name the boot that registered") {
				n += max(1, e.Count)
			}
		}
		return n
	}
	const missing = "missing"
	want := 0
	for _, id := range []string{
		"", "another", "11111111-2222-4333-8444-555555555556", bootID + "0",
		missing,
	} {
		for _, c := range callsOf(id) {
			if id == missing {
				c.header = nil
				if c.in != nil {
					c.in = struct{}{}
				}
			}
			code, answer := agent.call(c.method, c.path, c.in, c.header...)
			if code != 401 || strings.Contains(answer, "inspect") {
				t.Errorf("boot id %q: %s %s = %d %s, want 401 and nothing else", id, c.method, c.path, code,
					answer)
			}
			want++
			// The timeline is written a moment later.
			eventually(t, fmt.Sprintf("%s %s with boot id %q is an event", c.method, c.path, id),
				func() bool { return refusals() == want })
		}
	}
	for i, c := range callsOf(bootID) {
		code, answer := agent.call(c.method, c.path, c.in, c.header...)
		if want := []int{200, 410, 204, 404}[i]; code != want { // there is no such order, and no such image
			t.Errorf("with its own boot id: %s %s = %d %s, want %d", c.method, c.path, code, answer, want)
		}
	}
	if n := refusals(); n != want {
		t.Errorf("%d refusals are on the timeline, want %d", n, want)
	}
}

// Somebody who listens on the wire knows the nonce of a boot. It gives him nothing once the machine's agent
// has registered. The timeline shows what he tries, and `why` tells of it.
func TestOverheardNonce(t *testing.T) {
	testnet.Need(t)
	s := newSite(t)
	const bootID = "11111111-2222-4333-8444-555555555555"
	nonce := s.engine.IssueBoot(clientMAC).Nonce
	registration := inventory.Registration{MAC: clientMAC, BootID: bootID, Version: "test"}
	own := agentCertificate(t, ed25519Key)
	owner := newWireAgent(t, nonce, own)

	if code, answer := newWireAgent(t, nonce, nil).call("POST", "/register", registration); code != 401 ||
		!strings.Contains(answer, "pxectl ramdisk build") {
		t.Errorf("registration without a key = %d %s, want 401 and what to build", code, answer)
	}
	if code, answer := newWireAgent(t, nonce, agentCertificate(t, ecdsaKey)).call("POST", "/register",
		registration); code != 0 {
		t.Errorf("registration with a key of another kind = %d %s, want no connection", code, answer)
	}
	if code, answer := owner.call("POST", "/register",
		inventory.Registration{MAC: clientMAC, BootID: strings.Repeat("x", 3000)}); code != 422 ||
		len(answer) > 500 {
		t.Errorf("registration with a boot id that is none = %d %s, want 422 in few words", code, answer)
	}
	for range 2 { // the answer may be lost
		if code, answer := owner.call("POST", "/register", registration); code != 200 {
			t.Fatalf("registration = %d %s", code, answer)
		}
	}
	m, err := s.engine.Machine(string(clientMAC))
	if err != nil {
		t.Fatal(err)
	}

	for name, thief := range map[string]wireAgent{
		"with another key": newWireAgent(t, nonce, agentCertificate(t, ed25519Key)),
		"without a key":    newWireAgent(t, nonce, nil),
	} {
		for _, id := range []string{"", bootID, "another"} {
			for _, c := range callsOf(id) {
				if code, answer := thief.call(c.method, c.path, c.in, c.header...); code != 401 ||
					strings.Contains(answer, "inspect") {
					t.Errorf("%s, boot id %q: %s %s = %d %s, want 401 and nothing else", name, id, c.method,
						c.path, code, answer)
				}
			}
		}
		if code, answer := thief.call("POST", "/register", registration); code != 401 {
			t.Errorf("%s: second registration = %d %s, want 401", name, code, answer)
		}
	}
	// The agent itself is not disturbed, also over another connection of the same key.
	for _, agent := range []wireAgent{owner, newWireAgent(t, nonce, own)} {
		if code, answer := agent.call("POST", "/next", inventory.Ask{BootID: bootID}); code != 200 ||
			!strings.Contains(answer, inventory.DoInspect) {
			t.Errorf("the agent's own call = %d %s, want its order", code, answer)
		}
	}
	// The timeline is written a moment later.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		why, err := s.engine.Why(string(m.ID))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(why.Sentence, "showed the nonce of this boot") &&
			strings.Contains(why.Next, "boot it from the network again") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("why = %+v, want that somebody showed the nonce", why)
		}
	}
}

// The appliance's clock is a day ahead when a machine gets its script, and is corrected, or the other way
// round. Nonces from before a power-off stay invalid, and those from after it are accepted.
func TestAClockThatIsCorrected(t *testing.T) {
	testnet.Need(t)
	for name, at := range map[string][2]time.Duration{
		"ahead, then right": {24 * time.Hour, 0},
		"right, then ahead": {0, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.ahead.Store(int64(at[0]))
			registers := func(nonce string) int {
				code, _ := newWireAgent(t, nonce, agentCertificate(t, ed25519Key)).call("POST", "/register",
					inventory.Registration{MAC: clientMAC, BootID: "11111111-2222-4333-8444-555555555555"})
				return code
			}
			script := func() string {
				resp, err := http.Get("http://10.77.0.1:8080/boot.ipxe?mac=" + string(clientMAC))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, _ := io.ReadAll(resp.Body)
				_, rest, found := strings.Cut(string(text), "pxectl.nonce=")
				if !found {
					t.Fatalf("no nonce in the script: %s", text)
				}
				return strings.Fields(rest)[0]
			}
			first, unused := script(), script()
			if code := registers(first); code != 200 {
				t.Fatalf("registration = %d", code)
			}
			if _, err := s.engine.Approve(t.Context(), "test", string(clientMAC),
				deploy.Approval{}); err != nil {
				t.Fatal(err)
			}
			bmc := "10.77.0.99"
			if _, err := s.engine.EditMachine(t.Context(), "test", string(clientMAC),
				deploy.Edit{BMC: deploy.BMCEdit{Address: &bmc}}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.engine.Power(t.Context(), "test", string(clientMAC), power.ActOff); err != nil {
				t.Fatal(err)
			}
			s.ahead.Store(int64(at[1]))
			for what, nonce := range map[string]string{"spent": first, "unused": unused} {
				if code := registers(nonce); code != 401 {
					t.Errorf("registration with the %s nonce from before the power-off = %d, want 401", what,
						code)
				}
			}
			if code := registers(script()); code != 200 {
				t.Errorf("registration with a fresh nonce = %d, want 200", code)
			}
		})
	}
}
