package api

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// How much an agent may send, and how long it may take to send it.
const (
	maxRegistration = 4 << 10
	maxAsk          = 4 << 10
	maxProgress     = 4 << 10
	agentBodyTime   = 30 * time.Second
	resultTime      = 10 * time.Second // others wait for their turn meanwhile
	maxNonce        = 512
)

// AgentHandler serves /agent/v1/ as inventory/agent.go documents it. manifests returns the manifest of an
// image as it is stored. Serve it with AgentTLS: an agent is known by the key that its connection proves.
func AgentHandler(agents Agents, manifests func(id string) (io.ReadCloser, error), log *slog.Logger) http.Handler {
	a := agentSide{agents: agents, manifests: manifests, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/register", a.call(a.register))
	mux.HandleFunc("POST /agent/v1/next", a.call(a.next))
	mux.HandleFunc("POST /agent/v1/orders/{id}/progress", a.call(a.progress))
	mux.HandleFunc("POST /agent/v1/orders/{id}/result", a.call(a.result))
	mux.HandleFunc("GET /agent/v1/images/{id}/manifest", a.call(a.manifest))
	noCall := func(w http.ResponseWriter, r *http.Request) {
		call := inventory.Text(r.Method+" "+r.URL.Path, inventory.MaxWord)
		writeProblem(w, problemOf(&inventory.Problem{
			Code: inventory.CodeNotFound, Detail: "no such call: " + call,
		}))
	}
	mux.HandleFunc("/", noCall)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect such a path to its clean form, in an answer several times as long as the
		// request.
		if path.Clean(r.URL.Path) != r.URL.Path {
			noCall(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// AgentTLS returns the TLS configuration of the agents' port. An agent shows the certificate of a key that it
// made itself, and proves in the handshake that it holds the key (RFC 8446 section 4.4.3). There is no chain
// to check. There are no session tickets, so each connection proves the key anew.
func AgentTLS(server tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{server},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"http/1.1"},
		ClientAuth:   tls.RequestClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil // each call over it is refused, with a hint
			}
			if _, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok ||
				len(s.PeerCertificates) > 1 {
				return errors.New("want one certificate, of an Ed25519 key")
			}
			return nil
		},
	}
}

// keyOf returns the SHA-256 of the public key that a connection proved to hold, in hexadecimal, or "".
func keyOf(s *tls.ConnectionState) string {
	if s == nil || len(s.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

type agentSide struct {
	agents    Agents
	manifests func(id string) (io.ReadCloser, error)
	log       *slog.Logger
}

type agentCall func(ctx context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request) error

// call makes a handler of do. It reads the nonce before, and turns the error of do into an answer for an
// agent.
func (a agentSide) call(do agentCall) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		nonce, err := bearer(r.Header)
		if err == nil {
			err = do(r.Context(), inventory.Caller{Nonce: nonce, Key: keyOf(r.TLS), IP: remoteIP(r)}, w, r)
		}
		if err == nil || r.Context().Err() != nil {
			return
		}
		p := *problemOf(err)
		level := slog.LevelInfo
		switch p.Code {
		case inventory.CodeRefused:
			p.Status, p.Title = http.StatusUnauthorized, http.StatusText(http.StatusUnauthorized)
			w.Header().Set("WWW-Authenticate", "Bearer")
		case inventory.CodeInternal:
			// Whoever is on the provisioning network may read this answer; the details are for our log.
			p.Detail, p.Hint = "a fault of the appliance; its log says more", ""
			level = slog.LevelError
		}
		a.log.Log(r.Context(), level, "agent call refused", "call", r.URL.Path, "ip", remoteIP(r),
			"status", p.Status, "err", err)
		writeProblem(w, &p)
	}
}

func (a agentSide) register(
	ctx context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request,
) error {
	var in inventory.Registration
	if err := readJSON(w, r, maxRegistration, &in); err != nil {
		return err
	}
	out, err := a.agents.Register(ctx, c, in)
	if err == nil {
		writeJSON(w, out)
	}
	return err
}

func (a agentSide) next(_ context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request) error {
	var in inventory.Ask
	if err := readJSON(w, r, maxAsk, &in); err != nil {
		return err
	}
	ctx, cancel := whileServing(r)
	defer cancel()
	order, err := a.agents.Next(ctx, c, in)
	if err != nil && ctx.Err() != nil {
		// The agent has hung up or the appliance stops: the agent asks again, after a stop the next
		// appliance.
		order, err = inventory.Order{Do: inventory.DoWait}, nil
	}
	if err == nil {
		writeJSON(w, order)
	}
	return err
}

func (a agentSide) progress(
	ctx context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request,
) error {
	var in inventory.Progress
	if err := readJSON(w, r, maxProgress, &in); err != nil {
		return err
	}
	err := a.agents.OrderProgress(ctx, c, r.PathValue("id"), in)
	if err != nil {
		p := *problemOf(err)
		if p.Code == inventory.CodeConflict || p.Code == inventory.CodeNotFound {
			p.Status, p.Title = http.StatusGone, http.StatusText(http.StatusGone)
			return &p
		}
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a agentSide) result(
	ctx context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request,
) error {
	// The turn comes before anything is read: a caller without a boot must not send a body.
	limit, end, err := a.agents.ResultTurn(ctx, c)
	if err != nil {
		return err
	}
	defer end() // once the result is on disk: until then it takes memory
	in, err := readResult(w, r, limit)
	if err != nil {
		return err
	}
	if err := a.agents.OrderResult(ctx, c, r.PathValue("id"), in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a agentSide) manifest(
	ctx context.Context, c inventory.Caller, w http.ResponseWriter, r *http.Request,
) error {
	id := r.PathValue("id")
	if err := a.agents.MayRead(ctx, c, r.Header.Get(inventory.BootIDHeader), id); err != nil {
		return err
	}
	manifest, err := a.manifests(id)
	if err != nil {
		return err
	}
	defer manifest.Close()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// It may have megabytes, and hundreds of callers read it slowly: never all of it in memory. An agent sees
	// by its hash whether all of it has come.
	if _, err := io.Copy(w, manifest); err != nil {
		panic(http.ErrAbortHandler) // the answer has begun
	}
	return nil
}

// bearer reads "Authorization: Bearer NONCE" (RFC 6750 section 2.1). There must be exactly one.
func bearer(h http.Header) (string, error) {
	refused := func(why string) (string, error) {
		return "", &inventory.Problem{Code: inventory.CodeRefused, Detail: "header Authorization: " + why}
	}
	values := h.Values("Authorization")
	if len(values) != 1 {
		return refused("want exactly one")
	}
	scheme, nonce, ok := strings.Cut(values[0], " ") // RFC 9110 section 11.1: the scheme in any case
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return refused("want Bearer NONCE")
	}
	if nonce == "" || len(nonce) > maxNonce {
		return refused("the nonce is empty or too long")
	}
	for _, c := range []byte(nonce) {
		if !isToken68(c) {
			return refused("the nonce has a character that cannot be in one")
		}
	}
	return nonce, nil
}

// isToken68 says whether c is in the alphabet of RFC 9110 section 11.2.
func isToken68(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("-._~+/=", c) >= 0
}

// readJSON reads a body that is one JSON value of at most limit bytes. Members that we do not know are
// ignored, so that an agent may be newer than its appliance.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(agentBodyTime))
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			_ = rc.SetReadDeadline(time.Time{}) // a long poll may follow
			return nil
		} else if err == nil {
			err = errors.New("more than one JSON value")
		}
	}
	return badBody(err)
}

// readResult reads a body that is a result of at most limit bytes, and of each list no more than is kept.
func readResult(w http.ResponseWriter, r *http.Request, limit int64) (in inventory.Result, err error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(resultTime))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{})
		raw, err = inventory.Shortened(raw)
	}
	if err == nil {
		err = json.Unmarshal(raw, &in)
	}
	if err != nil {
		return in, badBody(err)
	}
	return in, nil
}

func badBody(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Problem{
			Title:  http.StatusText(http.StatusRequestEntityTooLarge),
			Status: http.StatusRequestEntityTooLarge,
			Code:   inventory.CodeInvalid,
			Detail: fmt.Sprintf("body: more than %d bytes", tooLarge.Limit),
		}
	}
	return invalid("body: %v", err)
}

func remoteIP(r *http.Request) string {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap().String()
	}
	return r.RemoteAddr
}
