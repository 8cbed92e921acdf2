package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

func TestHowAStepEndedIsShown(t *testing.T) {
	began := time.Date(2026, 11, 20, 10, 0, 0, 0, time.Local)
	ended := began.Add(91 * time.Second)
	for want, r := range map[string]inventory.StepRecord{
		"write-image  1m31s  given up: its agent went silent": {
			EndedAt: ended, Error: "its agent went silent", GivenUp: true,
		},
		"write-image  1m31s  failed: the disk died": {
			EndedAt: ended, Error: "the disk died",
		},
		"write-image  1m31s  256 chunks verified": {
			EndedAt: ended, Proof: "256 chunks verified",
		},
		"write-image  11m30s  waiting, until 2026-11-20 11:00:00 at most": {},
	} {
		r.Step, r.Attempt, r.BeganAt, r.Deadline = inventory.WriteImage, 1, began, began.Add(time.Hour)
		var out bytes.Buffer
		c := &cli{out: &out, now: func() time.Time { return began.Add(11*time.Minute + 30*time.Second) }}
		d := api.Deployment{
			Deployment: inventory.Deployment{
				ID:      "d-1",
				Outcome: inventory.Running,
				Step:    inventory.BootAgent,
				History: []inventory.StepRecord{r},
			},
		}
		if err := c.showDeployment(d); err != nil ||
			!strings.Contains(strings.Join(strings.Fields(out.String()), " "),
				strings.Join(strings.Fields(want), " ")) {
			t.Errorf("%+v is shown as (%v)\n%swant %s", r, err, out.String(), want)
		}
	}
}
