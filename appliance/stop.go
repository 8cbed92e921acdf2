package appliance

import (
	"context"
	"log/slog"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
)

// stopWithin is how long the appliance may take to stop. Every part stops sooner by itself, except with an
// unknown bug, or on a disk that no longer answers. What is abandoned then is as after a kill -9, which loses
// nothing.
const stopWithin = 2500 * time.Millisecond

// within calls run and returns its error. If run goes on for longer than grace after ctx has ended, within
// returns nil and leaves it behind.
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
		log.Warn("stop: not all has stopped in time; what is left is abandoned, and taken up at the next start",
			"waited", grace)
		return nil
	}
}
