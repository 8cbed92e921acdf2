package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
)

// Limits of a connection before a handler runs, and of the time that a stop takes. There is no overall read
// or write timeout: image uploads, consoles, event streams and long polls last.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
	shutdownGrace = 1500 * time.Millisecond
)

// Serve answers on l until ctx ends. Then it tells streams and long polls to end, and gives other calls
// shutdownGrace. It closes l. For TLS, wrap l with tls.NewListener.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	srv := &http.Server{
		Handler:           recovered(h, log),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return peerActor(context.WithValue(ctx, stoppingKey{}, stopping), c)
		},
	}
	srv.RegisterOnShutdown(stop)
	served := make(chan error, 1)
	go func() {
		var err error
		defer func() { served <- err }()
		defer bug.Return(log, "serve", &err)
		err = srv.Serve(l)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close() // an upload that would take minutes is cut; the client says so
	}
	return nil
}

type stoppingKey struct{}

// whileServing ends with the request and also when the server is stopping. It is for calls that
// would otherwise hold up the stop: streams, long polls, consoles.
func whileServing(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	if stopping, ok := r.Context().Value(stoppingKey{}).(context.Context); ok {
		unhook := context.AfterFunc(stopping, bug.Recovering(nil, "end a call", cancel))
		return ctx, func() { unhook(); cancel() }
	}
	return ctx, cancel
}

// recovered keeps a handler's panic from ending the process, and says so in the log and to the caller.
func recovered(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr,
				"panic", v, "stack", string(debug.Stack()))
			writeProblem(w, problemOf(errors.New("a fault of the appliance; its log says more")))
		}()
		h.ServeHTTP(w, r)
	})
}
