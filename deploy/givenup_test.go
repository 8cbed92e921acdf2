package deploy

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A step whose agent went silent has an end when the run leaves it, and its record does not stay open.
func TestAStepThatIsGivenUpEnds(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.dead.WriteImage = time.Hour
	writes, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.onOrder = func(o inventory.Order) {
		if o.Do == inventory.DoWriteImage {
			once.Do(func() { close(writes); <-goOn })
		}
	}
	r.available()
	r.deploy(inventory.DeployRequest{})
	<-writes
	r.powerOff() // by hand
	close(goOn)
	r.unplug()
	r.ahead.Add(int64(agentLost + time.Second))
	r.until(inventory.Deployed)
	d, err := r.now().Deployment("m1")
	if err != nil {
		t.Fatal(err)
	}
	var left []inventory.StepRecord
	for _, rec := range d.History {
		if rec.EndedAt.IsZero() {
			t.Errorf("%s (attempt %d) has no end", rec.Step, rec.Attempt)
		}
		if rec.GivenUp {
			left = append(left, rec)
		}
	}
	if len(left) != 1 || left[0].Step != inventory.WriteImage || left[0].Error != "its agent went silent" ||
		left[0].EndedAt.Sub(left[0].BeganAt) < agentLost {
		t.Errorf("given up are %+v, want write-image after its agent went silent", left)
	}
	if said := texts(t, r.now().cfg.Store); !strings.Contains(said,
		"write-image given up: its agent went silent") {
		t.Errorf("the timeline says %s, want that write-image was given up", said)
	}
}

func TestACancelledStepEnds(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.available()
	r.off()
	d := r.deploy(inventory.DeployRequest{})
	r.acted(inventory.BootAgent)
	d, err := r.now().CancelDeployment(t.Context(), "test", d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if last := d.History[len(d.History)-1]; last.EndedAt.IsZero() || !last.GivenUp ||
		last.Error != "cancelled by test" {
		t.Errorf("the step at which it was cancelled: %+v, want given up: cancelled by test", last)
	}
}
