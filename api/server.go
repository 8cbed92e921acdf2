package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/pxectl/pxectl/inventory"
)

// Config is what a Server is made of. Only Leases, Doctor and Ready may be left out.
type Config struct {
	Fleet   Fleet
	Images  Images
	Leases  Leases                        // nil: no such calls
	Doctor  func(context.Context) []Check // nil: no such call
	Version string
	Log     *slog.Logger
	Ready   func() error // why not ready yet; nil: always ready
}

// Server answers the operators' calls.
type Server struct {
	fleet   Fleet
	images  Images
	leases  Leases
	doctor  func(context.Context) []Check
	version VersionInfo
	log     *slog.Logger
	ready   func() error
	handler http.Handler
}

// NewServer builds the handlers and the OpenAPI document; it opens nothing.
func NewServer(c Config) *Server {
	s := &Server{
		fleet: c.Fleet, images: c.Images, leases: c.Leases, doctor: c.Doctor, log: c.Log, ready: c.Ready,
		version: VersionInfo{Version: c.Version, Go: runtime.Version()},
	}
	mux := http.NewServeMux()
	config := huma.DefaultConfig("pxectl", c.Version)
	config.Info.Description = "Discovers, inspects and deploys the machines of a rack."
	config.DocsPath = "" // the page would load its program from elsewhere
	config.SchemasPath = ""
	config.CreateHooks = nil // no $schema members in answers
	config.RejectUnknownQueryParameters = true
	rest := humago.New(mux, config)
	s.addMachines(rest)
	s.addPower(rest)
	s.addDeployments(rest)
	s.addImages(rest)
	if s.doctor != nil {
		s.addDoctor(rest)
	}
	if s.leases != nil {
		s.addLeases(rest)
	}
	handle(rest, http.MethodGet, "/v1/version", "Which program answers", func(context.Context,
		*struct{},
	) (*body[VersionInfo], error) {
		return &body[VersionInfo]{s.version}, nil
	})

	s.addStream(rest, mux, importOperation, s.importImage)
	s.addStream(rest, mux, verifyOperation, s.verifyImage)
	s.addStream(rest, mux, eventsOperation, s.streamEvents)
	s.addStream(rest, mux, consoleOperation, s.console)

	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problemOf(&inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: "no such path: " + inventory.Text(r.Method+" "+r.URL.Path, inventory.MaxWord),
			Hint:   "GET /openapi.json lists them",
		}))
	})
	s.handler = s.known(mux)
	return s
}

// Handler serves /v1, /openapi.json, /healthz and /readyz. The first two need an actor in the request's
// context: Serve puts it there for Unix sockets, WithActor does for anything else.
func (s *Server) Handler() http.Handler { return s.handler }

// known refuses a call without an actor, because the audit log has to name one. /healthz and /readyz need
// none.
func (s *Server) known(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		if !open && actorOf(r.Context()) == "" {
			writeProblem(w, &Problem{
				Title:  http.StatusText(http.StatusUnauthorized),
				Status: http.StatusUnauthorized,
				Code:   inventory.CodeRefused,
				Detail: "no credentials", Hint: "use the appliance's Unix socket",
			})
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.ready != nil {
		if err := s.ready(); err != nil {
			p := problemOf(err)
			p.Status, p.Title = http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable)
			writeProblem(w, p)
			return
		}
	}
	_, _ = w.Write([]byte("ready\n"))
}

// body is an answer that is all body.
type body[T any] struct{ Body T }

// handle registers one JSON operation. Every error of do becomes a problem; those that are our own
// fault are logged too, because the caller cannot do anything about them.
func handle[I, O any](
	rest huma.API, method, path, summary string, do func(context.Context,
		*I) (*O, error), change ...func(*huma.Operation),
) {
	op := huma.Operation{
		Method: method, Path: path, Summary: summary,
		OperationID: huma.GenerateOperationID(method, path, (*O)(nil)),
	}
	if _, silent := any((*O)(nil)).(*struct{}); silent {
		op.DefaultStatus = http.StatusNoContent
	}
	for _, f := range change {
		f(&op)
	}
	huma.Register(rest, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// addStream registers a plain handler (its body or answer is no JSON value) and documents it.
func (s *Server) addStream(
	rest huma.API, mux *http.ServeMux, op *huma.Operation, h func(http.ResponseWriter, *http.Request) error,
) {
	documented := *op
	rest.OpenAPI().AddOperation(&documented)
	mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil || errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			return
		}
		writeProblem(w, problemOf(err))
	})
}
