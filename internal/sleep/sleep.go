// Package sleep waits, but not beyond a context.
package sleep

import (
	"context"
	"time"
)

// For waits for d. It returns ctx's error when ctx ends first or has ended already.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
