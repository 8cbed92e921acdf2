package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// watchToEnd shows the deployments that were started and, with --wait, watches them to their end. refused is
// the error of those that were not started.
func (c *cli) watchToEnd(
	ctx context.Context, client *api.Client, started []api.Deployment, refused error, f waitFlags,
) error {
	if len(started) == 0 {
		return refused
	}
	if !f.wait {
		if err := c.print(started, deploymentIDs(started), func(t *table) {
			t.row("MACHINE", "DEPLOYMENT", "IMAGE", "HOSTNAME")
			for _, d := range started {
				t.row(machineOf(d), d.ID, imageOf(d), d.Hostname)
			}
		}); err != nil {
			return err
		}
		return refused
	}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	report(c.err, refused) // print it now: the wait may be long
	ended, lost := c.watch(ctx, client, started)
	if err := c.print(ended, deploymentIDs(ended), func(t *table) { c.stepTable(t, ended) }); err != nil {
		return err
	}
	errs := []error{lost}
	for _, d := range ended {
		errs = append(errs, failureOf(d, ctx.Err()))
	}
	if err := joinErrors(errs); err != nil {
		return err
	}
	if refused != nil {
		return reported{refused}
	}
	return nil
}

// reported is an error that was printed already; it only sets the exit code.
type reported struct{ error }

func (r reported) Unwrap() error { return r.error }

// stepHeads are the steps in words that fit a table of 80 columns.
var stepHeads = map[inventory.Step]string{
	inventory.Validate: "CHECK", inventory.BootAgent: "AGENT", inventory.PrepareDisk: "PREPARE",
	inventory.WriteImage: "WRITE",
	inventory.FinishDisk: "FINISH", inventory.BootOS: "BOOT", inventory.VerifyOS: "VERIFY",
	inventory.EraseDisks: "ERASE",
}

// stepTable shows how each deployment ended and how long each step took. It leaves out a step that took no
// time anywhere.
func (c *cli) stepTable(t *table, deployments []api.Deployment) {
	head := []any{"MACHINE", "OUTCOME", "TIME"}
	var steps []inventory.Step
	for _, s := range append(slices.Clone(inventory.Steps), inventory.EraseDisks) {
		if slices.ContainsFunc(deployments,
			func(d api.Deployment) bool { return stepTime(d, s) >= 50*time.Millisecond }) {
			steps, head = append(steps, s), append(head, stepHeads[s])
		}
	}
	t.row(head...)
	for _, d := range deployments {
		row := []any{machineOf(d), d.Outcome, c.lasted(d)}
		for _, s := range steps {
			if sum := stepTime(d, s); sum > 0 {
				row = append(row, took(sum))
			} else {
				row = append(row, "")
			}
		}
		t.row(row...)
	}
}

// stepTime is the time of all attempts at a step.
func stepTime(d api.Deployment, s inventory.Step) (sum time.Duration) {
	for _, r := range d.History {
		if r.Step == s && !r.EndedAt.IsZero() {
			sum += r.EndedAt.Sub(r.BeganAt)
		}
	}
	return sum
}

// failureOf is the error that a deployment ended with, or says that it has not ended.
func failureOf(d api.Deployment, stopped error) error {
	name := machineOf(d)
	switch {
	case d.Outcome == inventory.Succeeded:
		return nil
	case d.Outcome == inventory.Running && errors.Is(stopped, context.DeadlineExceeded):
		return &inventory.Problem{
			Code:   inventory.CodeTimeout,
			Detail: fmt.Sprintf("%s: still at %s when the time was over", name, d.Step),
			Hint:   "the deployment goes on; `pxectl deployment show " + string(d.ID) + "` shows it",
		}
	case d.Outcome == inventory.Running && stopped != nil:
		return &inventory.Problem{
			Code: inventory.CodeInternal, Detail: fmt.Sprintf("%s: interrupted at %s", name, d.Step),
			Hint: "the deployment goes on; `pxectl deployment cancel " + string(d.ID) + "` would end it",
		}
	case d.Outcome == inventory.Running:
		return nil // lost: the error of the lost connection says so
	case d.Failure != nil:
		hint := d.Failure.Hint
		if hint == "" {
			hint = "run `pxectl why " + name + "`"
		}
		return &inventory.Problem{
			Code:   inventory.CodeInternal,
			Detail: name + ": " + d.Failure.Step + ": " + d.Failure.Reason,
			Hint:   hint,
		}
	default:
		return &inventory.Problem{
			Code: inventory.CodeInternal, Detail: name + ": " + string(d.Outcome) + " at " + string(d.Step),
		}
	}
}
