package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

const (
	lookEvery = 250 * time.Millisecond
	// maxAway is how long a watcher waits for an appliance that is away: long enough for it, or its host, to
	// restart.
	maxAway = 5 * time.Minute
)

// watch shows deployments until all of them have ended, ctx ends or the appliance is away for too long. It
// returns the last known state of each.
func (c *cli) watch(
	ctx context.Context, client *api.Client, deployments []api.Deployment,
) ([]api.Deployment, error) {
	names := make([]string, len(deployments))
	widest := 0
	for i, d := range deployments {
		names[i] = machineOf(d)
	}
	for _, s := range inventory.Steps {
		widest = max(widest, len(s))
	}
	b := c.newProgress(ctx, names, widest)
	defer b.close()
	shown := make([]int, len(deployments)) // records of the history that were shown
	every := lookEvery + time.Duration(len(deployments))*5*time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	contact := time.Now()
	away := false
	for {
		running := 0
		for i, d := range deployments {
			if d.Outcome != inventory.Running {
				continue
			}
			now, err := client.Deployment(ctx, string(d.ID))
			switch {
			case ctx.Err() != nil:
				return deployments, nil
			case errors.Is(err, api.ErrUnreachable) && time.Since(contact) < maxAway:
				if !away {
					b.note("the appliance went away; waiting for it")
				}
				away = true
			case err != nil:
				return deployments, err
			default:
				if away {
					b.note("the appliance is back")
				}
				away, contact = false, time.Now()
				deployments[i] = now
				shown[i] = c.showProgress(b, i, now, shown[i])
			}
			if deployments[i].Outcome == inventory.Running {
				running++
			}
			if away {
				break
			}
		}
		if running == 0 {
			return deployments, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return deployments, nil
		}
	}
}

// showProgress shows the news of one deployment: the steps that began, then how far the current one is.
func (c *cli) showProgress(b progress, i int, d api.Deployment, shown int) int {
	step := string(d.Step)
	for j, r := range d.History {
		step = string(r.Step)
		if r.Attempt > 1 {
			step += fmt.Sprintf(" (attempt %d)", r.Attempt)
		}
		if j >= shown {
			b.show(i, moment{at: r.BeganAt.Sub(d.CreatedAt), step: step})
		}
	}
	at := c.now().Sub(d.CreatedAt)
	switch {
	case d.Outcome == inventory.Succeeded:
		done := "deployed"
		if d.Erase != nil {
			done = "available"
		}
		b.show(i, moment{at: d.EndedAt.Sub(d.CreatedAt), step: done, end: true})
	case d.Outcome != inventory.Running:
		text := string(d.Outcome)
		if d.Failure != nil {
			text += ": " + d.Failure.Reason
		}
		b.show(i, moment{at: d.EndedAt.Sub(d.CreatedAt), step: text, end: true, failed: true})
	case d.Progress != nil && d.Progress.Total > 0:
		if p := d.Progress.Phase; p != "" && p != "write" {
			step = p
		}
		b.show(i, moment{at: at, step: step, done: d.Progress.Done, total: d.Progress.Total})
	default:
		b.show(i, moment{at: at, step: step})
	}
	return len(d.History)
}
