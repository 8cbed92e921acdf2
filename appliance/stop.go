package appliance

import (
	"context"
	"log/slog"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
)

// stopWithin is how long the appliance may take to stop. Every part of it stops sooner by itself; this is for
// what nobody foresaw, and for a disk that answers no more. What is left behind then is as after a kill -9,
// which loses nothing.
const stopWithin = 2500 * time.Millisecond

// within runs something until it ends, or until some time after ctx has.
func within(
	ctx context.Context, grace time.Duration, log *slog.Logger, run func(context.Context) error,
) error {
	ended := make(chan error, 1)
	go func() {
		var err error
		defer func() { ended <- err }()
		defer bug.Return(log, "serve", &err)
		err = run(ctx)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		log.Warn("stop: not all has stopped in time; what is left is abandoned, and taken up at the next start", "waited", grace)
		return nil
	}
}
