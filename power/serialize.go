package power

import (
	"context"
	"io"
)

// Serialize makes b safe for several goroutines: each call waits for its turn, or until its ctx ends.
// Consoles do not wait, because each has a session of its own. The result is a Console when b is one.
func Serialize(b BMC) BMC {
	s := serialized{bmc: b, turn: make(chan struct{}, 1)}
	if c, ok := b.(Console); ok {
		return serializedConsole{s, c}
	}
	return s
}

type serialized struct {
	bmc  BMC
	turn chan struct{}
}

func (s serialized) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s serialized) give() { <-s.turn }

func (s serialized) Power(ctx context.Context) (bool, error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.give()
	return s.bmc.Power(ctx)
}

func (s serialized) Do(ctx context.Context, a Action) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	return s.bmc.Do(ctx, a)
}

func (s serialized) Boot(ctx context.Context) (Boot, error) {
	if err := s.take(ctx); err != nil {
		return Boot{}, err
	}
	defer s.give()
	return s.bmc.Boot(ctx)
}

func (s serialized) SetBoot(ctx context.Context, b Boot) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	return s.bmc.SetBoot(ctx, b)
}

type serializedConsole struct {
	serialized
	console Console
}

func (s serializedConsole) Console(ctx context.Context, in io.Reader, out io.Writer) error {
	return s.console.Console(ctx, in, out)
}

func (s serializedConsole) Listen(ctx context.Context, out io.Writer) error {
	return s.console.Listen(ctx, out)
}
