package deploy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A lingering BMC answers some time after the call was given up.
type lingering struct {
	power.BMC
	asked chan struct{}
	late  <-chan struct{}
}

func (l lingering) Do(ctx context.Context, _ power.Action) error {
	l.asked <- struct{}{}
	<-ctx.Done()
	<-l.late
	return ctx.Err()
}

// What a worker meets while the engine stops, after the timeline's loop has ended, and what others note after
// that, is in the store when all have stopped.
func TestWhatIsNotedWhileStoppingIsWritten(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.tune = func(e *Engine) { e.grace = time.Minute }
	asked, late := make(chan struct{}, 1), make(chan struct{})
	r.open = func(power.Target) (power.BMC, error) { return lingering{r.bmc, asked, late}, nil }
	r.available()
	r.agentless()
	e := r.now()
	r.deploy(inventory.DeployRequest{})
	<-asked
	r.mu.Lock()
	cancel, done := r.end, r.ended
	r.mu.Unlock()
	cancel()
	<-e.written
	close(late)
	<-done
	e.Note(inventory.Event{MAC: testMAC, Kind: inventory.KindHTTP, Text: "a download was cut off"})
	if err := e.Drain(); err != nil {
		t.Fatal(err)
	}
	r.crash()
	told := texts(t, r.now().cfg.Store)
	for _, want := range []string{"told to off: context canceled", "a download was cut off"} {
		if !strings.Contains(told, want) {
			t.Errorf("after the stop, nothing on the timeline says %q: %s", want, told)
		}
	}
}
