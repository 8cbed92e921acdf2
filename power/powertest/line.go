package powertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pxectl/pxectl/power"
)

// WithConsole is a BMC with a serial console.
type WithConsole struct {
	*BMC
	*Line
}

var _ power.Console = WithConsole{}

// A Line is a machine's serial line as a BMC offers it: to one session at a time. Console takes it from the
// session that has it, and Listen does not. What the machine writes while no session has the line is lost.
type Line struct {
	Err error // when set, Console and Listen return it, in a *power.Error

	mu     sync.Mutex
	holder *holder
	typed  bytes.Buffer
}

type holder struct {
	as    string
	out   io.Writer
	taken chan struct{} // closed when another session takes the line
}

// Say writes text as the machine.
func (l *Line) Say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != nil {
		_, _ = io.WriteString(l.holder.out, text)
	}
}

// Holder says which session has the line: "console", "listener", or "".
func (l *Line) Holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == nil {
		return ""
	}
	return l.holder.as
}

// Typed returns what the sessions have sent to the machine.
func (l *Line) Typed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.typed.String()
}

// Console takes the line, also from another session.
func (l *Line) Console(ctx context.Context, in io.Reader, out io.Writer) error {
	h, err := l.take("console", out, true)
	if err != nil {
		return err
	}
	defer l.leave(h)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(keys{l}, in)
	}()
	return h.wait(ctx, ended)
}

// Listen takes the line when no session has it; else the error is power.ErrTaken.
func (l *Line) Listen(ctx context.Context, out io.Writer) error {
	h, err := l.take("listener", out, false)
	if err != nil {
		return err
	}
	defer l.leave(h)
	return h.wait(ctx, nil)
}

func (l *Line) take(as string, out io.Writer, over bool) (*holder, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := func(err error) (*holder, error) {
		return nil, &power.Error{Target: "192.0.2.1:623", Doing: "serial console of", Err: err}
	}
	switch {
	case l.Err != nil:
		return fail(l.Err)
	case l.holder != nil && !over:
		return fail(power.ErrTaken)
	case l.holder != nil:
		close(l.holder.taken)
	}
	l.holder = &holder{as, out, make(chan struct{})}
	return l.holder, nil
}

func (l *Line) leave(h *holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == h {
		l.holder = nil
	}
}

func (h *holder) wait(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-h.taken:
		return &power.Error{
			Target: "192.0.2.1:623", Doing: "serial console of", Err: errors.New("the BMC hung up"),
		}
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

type keys struct{ l *Line }

func (k keys) Write(p []byte) (int, error) {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	return k.l.typed.Write(p)
}
