package sleep

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestFor(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		d    time.Duration
		want error
	}{
		"the time is over":          {t.Context(), time.Millisecond, nil},
		"no time":                   {t.Context(), -time.Second, nil},
		"the context ends":          {soon, time.Hour, context.DeadlineExceeded},
		"the context has ended":     {ended, time.Hour, context.Canceled},
		"no time, and it has ended": {ended, 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			if err := For(c.ctx, c.d); !errors.Is(err, c.want) {
				t.Errorf("For(%v) = %v, want %v", c.d, err, c.want)
			}
		})
	}
}
