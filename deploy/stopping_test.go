package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// A lingering BMC answers some time after its caller has given up.
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

// Events of a worker while the engine stops, after the timeline's loop has ended, and events that others note
// after that, are in the store when all have stopped.
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
	for _, want := range []string{"told to switch off: context canceled", "a download was cut off"} {
		if !strings.Contains(told, want) {
			t.Errorf("after the stop, nothing on the timeline says %q: %s", want, told)
		}
	}
}

// Strangers that register while the engine stops add nothing to the store: no other stranger can be deleted
// to make room, since the workers have ended.
func TestNobodyIsLetInWhileStopping(t *testing.T) {
	t.Parallel()
	for _, there := range []int{MaxStrangers, 5} {
		r := newRack(t)
		r.strangers(there)
		e := r.start()
		r.mu.Lock()
		stop, stopped := r.end, r.ended
		r.mu.Unlock()
		stop()
		<-stopped // all of its parts; servers of machines may still call it
		for i := range 10 {
			_, err := registers(t, e, inventory.MAC(fmt.Sprintf("52:54:78:00:00:%02x", i)),
				fmt.Sprint("192.0.2.", 100+i))
			asProblem(t, "a registration while the engine stops", err, inventory.CodeTimeout, "stopping",
				"call again")
		}
		if n := len(stored(t, e)); n != there {
			t.Errorf("%d machines are in the store after the stop, want the %d that were there before", n,
				there)
		}
	}
}
