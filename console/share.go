package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/power"
)

const (
	reconnectSoon = 2 * time.Second // after a BMC hung up; an operator who freed the console is faster
	reconnect     = 5 * time.Second // while it fails for another reason
)

// Watch reads the machine's console until ctx ends, except while an operator has it. It stops when the BMC
// will never give the console: it has none, or refuses us.
func (w *Watcher) Watch(ctx context.Context, open func() (power.BMC, error)) {
	failed := 0 // times in a row
	for {
		session, release := w.acquire(ctx)
		if ctx.Err() != nil {
			release()
			return
		}
		began := time.Now()
		err := func() error {
			defer release()
			b, err := open()
			if err != nil {
				return err
			}
			c, ok := b.(power.Console)
			if !ok {
				return fmt.Errorf("a console is %w", power.ErrUnsupported)
			}
			return c.Listen(session, w)
		}()
		if err == nil || ctx.Err() != nil { // ctx has ended, or an operator wants the console
			failed = 0
			continue
		}
		if failed++; time.Since(began) > reconnect {
			failed = 1 // it worked, and the BMC hung up: some do when power changes
		}
		hopeless := errors.Is(err, power.ErrUnsupported) || errors.Is(err, power.ErrPrivilege) ||
			errors.Is(err, power.ErrRefused)
		if hopeless || failed > 1 || errors.Is(err, power.ErrTaken) {
			w.reportAbsent(reason(err))
		}
		if hopeless {
			return
		}
		wait := reconnect
		if failed == 1 {
			wait = reconnectSoon
		}
		_ = sleep.For(ctx, wait)
	}
}

// reason is why there is no console, without the BMC's address.
func reason(err error) string {
	if e, ok := errors.AsType[*power.Error](err); ok {
		err = e.Err
	}
	return err.Error()
}

// acquire waits until no operator has the console. The context that it returns ends when an operator wants
// it.
func (w *Watcher) acquire(ctx context.Context) (session context.Context, release func()) {
	for {
		w.mu.Lock()
		busy := w.ended
		if w.operators > 0 {
			busy = w.free
		}
		if busy == nil {
			break
		}
		w.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx, func() {}
		}
	}
	defer w.mu.Unlock()
	session, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	w.hangUp, w.ended = cancel, ended
	return session, func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.hangUp, w.ended = nil, nil
		close(ended)
	}
}

// Lend ends our own session, so that an operator can have the console, and waits until the BMC knows. The
// Watcher opens no session until giveBack is called.
func (w *Watcher) Lend(ctx context.Context) (giveBack func()) {
	w.mu.Lock()
	if w.operators++; w.operators == 1 {
		w.free = make(chan struct{})
	}
	hangUp, ended := w.hangUp, w.ended
	w.mu.Unlock()
	if hangUp != nil {
		hangUp()
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.operators--; w.operators == 0 {
			close(w.free)
			w.free = nil
		}
	}
}

// Tee lets the Watcher read an operator's console, too.
func (w *Watcher) Tee(out io.Writer) io.Writer { return io.MultiWriter(w, out) }
