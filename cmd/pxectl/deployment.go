package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) deploymentCommand() *cobra.Command {
	cmd := group("deployment", "List, show, retry and cancel deployments", c.deploymentList(),
		c.deploymentShow(), c.deploymentRetry(), c.deploymentCancel())
	cmd.Aliases = []string{"deployments"}
	return cmd
}

func (c *cli) deploymentList() *cobra.Command {
	var q deploy.DeploymentQuery
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List deployments and releases, newest first",
		Args:    cobra.NoArgs,
		Long: "List deployments and releases, newest first. " +
			"pxectl keeps the last 20 of each machine, and independently of\n" +
			"them its timeline (`pxectl events -m MACHINE`) " +
			"and the list of erased disks (`pxectl machine erasures`).",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			deployments, more, err := pages(limit, func(last *api.Deployment,
				size int,
			) ([]api.Deployment, bool, error) {
				if q.Limit = size; last != nil {
					q.Before = last.ID
				}
				return client.Deployments(cmd.Context(), q)
			})
			if err != nil {
				return err
			}
			if len(deployments) == 0 && c.output == "table" {
				switch {
				case q.Running:
					fmt.Fprintln(c.out, "no deployment is running")
				case q.Machine != "":
					fmt.Fprintf(c.out,
						"no deployments of %s yet: start one with `pxectl deploy %s --image NAME`\n",
						q.Machine, q.Machine)
				default:
					fmt.Fprintln(c.out,
						"no deployments yet: start one with `pxectl deploy MACHINE --image NAME`")
				}
				return nil
			}
			err = c.print(deployments, deploymentIDs(deployments), func(t *table) {
				c.deploymentRows(t, deployments)
			})
			if more {
				c.sayMore(limit)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&q.Running, "running", false, "list running ones only")
	cmd.Flags().StringVarP(&q.Machine, "machine", "m", "",
		"list those of this `machine` only (name, id or MAC)")
	cmd.Flags().IntVar(&limit, "limit", 50, "list at most this many; 0: all")
	return cmd
}

func checkLimit(limit int) error {
	if limit < 0 {
		return usagef("--limit %d: want a number, or 0 for all", limit)
	}
	return nil
}

func (c *cli) sayMore(limit int) {
	fmt.Fprintf(c.err, "these are the last %d; --limit 0 lists all\n", limit)
}

// pages lists limit entries, or all when limit is 0, a page at a time. next returns the first size of those
// that come after last, which is nil at the beginning. more says whether there are older ones.
func pages[T any](
	limit int, next func(last *T, size int) (page []T, more bool, err error),
) (all []T, more bool, err error) {
	var last *T
	for {
		size := deploy.MaxPage
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		page, more, err := next(last, size)
		if err != nil {
			return nil, false, err
		}
		all = append(all, page...)
		if !more || len(page) == 0 || len(all) == limit {
			return all, more, nil
		}
		last = &page[len(page)-1]
	}
}

func deploymentIDs(deployments []api.Deployment) []string {
	ids := make([]string, len(deployments))
	for i, d := range deployments {
		ids[i] = string(d.ID)
	}
	return ids
}

func (c *cli) deploymentRows(t *table, deployments []api.Deployment) {
	t.row("ID", "MACHINE", "IMAGE", "OUTCOME", "STEP", "TIME", "STARTED", "BY")
	for _, d := range deployments {
		step := string(d.Step)
		if d.Outcome == inventory.Succeeded {
			step = ""
		} else if d.Progress != nil {
			step += " " + percent(d.Progress.Done, d.Progress.Total)
		}
		t.row(d.ID, machineOf(d), imageOf(d), d.Outcome, step, c.lasted(d), c.ago(d.CreatedAt), d.Actor)
	}
}

// imageOf is the image of a deployment, or says that it writes none.
func imageOf(d api.Deployment) string {
	switch {
	case d.Erase == nil:
		return d.ImageName
	case d.Erase.Quick:
		return "(labels cleared)"
	}
	return "(erased)"
}

// machineOf is the machine's name, or its id once the machine has been deleted.
func machineOf(d api.Deployment) string {
	if d.MachineName != "" {
		return d.MachineName
	}
	return string(d.Machine)
}

func (c *cli) lasted(d api.Deployment) string {
	end := d.EndedAt
	if end.IsZero() {
		end = c.now()
	}
	return took(end.Sub(d.CreatedAt))
}

func (c *cli) outcomeLine(d api.Deployment) string {
	switch d.Outcome {
	case inventory.Running:
		return "at " + string(d.Step) + " for " + c.lasted(d)
	default:
		return string(d.Outcome) + " " + c.ago(d.EndedAt) + " after " + c.lasted(d)
	}
}

func (c *cli) deploymentShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show DEPLOYMENT|MACHINE",
		Short: "Show a deployment, or the last one of a machine",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			d, err := client.Deployment(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.output != "table" {
				return c.print(d, []string{string(d.ID)}, nil)
			}
			return c.showDeployment(d)
		},
	}
}

func (c *cli) showDeployment(d api.Deployment) error {
	t := newTable(c.out)
	t.field("id", d.ID)
	t.field("machine", machineOf(d))
	if d.Erase == nil {
		t.field("image", d.ImageName+" ("+d.ImageID[:min(12, len(d.ImageID))]+")")
	} else {
		t.field("image", imageOf(d))
	}
	t.field("hostname", d.Hostname)
	t.field("outcome", c.outcomeLine(d))
	if f := d.Failure; f != nil {
		t.field("reason", f.Step+": "+f.Reason)
		t.field("hint", f.Hint)
	}
	if !d.RetryUntil.IsZero() {
		t.field("retry", "`pxectl deployment retry "+machineOf(d)+"`, until "+stamp(d.RetryUntil))
	}
	if d.Disk != nil {
		t.field("disk", fmt.Sprintf("%s, %s%s", d.Disk.Name, humanize.Bytes(d.Disk.Bytes),
			prefixed(", serial ", d.Disk.Serial)))
	}
	if p := d.Progress; p != nil {
		t.field("progress",
			fmt.Sprintf("%s of %s, %s", binary(p.Done), binary(p.Total), percent(p.Done, p.Total)))
	}
	if w := d.Written; w != nil {
		t.field("written", fmt.Sprintf("%s image, %s written, %s sent, %s read back and verified",
			binary(w.Bytes), binary(w.Wrote), binary(w.Sent), count(w.ReadBack, "chunk")))
	}
	t.field("by", d.Actor)
	t.field("started", stamp(d.CreatedAt))
	if err := t.w.Flush(); err != nil || len(d.History) == 0 {
		return err
	}
	fmt.Fprintln(c.out)
	t = newTable(c.out)
	t.row("STEP", "TIME", "PROOF")
	for _, r := range d.History {
		step := string(r.Step)
		if r.Attempt > 1 {
			step += fmt.Sprintf(" (attempt %d)", r.Attempt)
		}
		end, proof := r.EndedAt, r.Proof
		if end.IsZero() {
			end, proof = c.now(), "waiting, until "+stamp(r.Deadline)+" at most"
		}
		switch {
		case r.GivenUp:
			proof = "given up: " + r.Error
		case r.Error != "":
			proof = "failed: " + r.Error
		}
		t.row(step, took(end.Sub(r.BeganAt)), proof)
	}
	return t.w.Flush()
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (c *cli) deploymentRetry() *cobra.Command {
	var waiting waitFlags
	cmd := &cobra.Command{
		Use:   "retry DEPLOYMENT|MACHINE...",
		Short: "Start failed deployments again, with the same options",
		Args:  cobra.MinimumNArgs(1),
		Long: "Start failed deployments and releases again, " +
			"with the same image, host name, disk, user-data, keys and network.\n" +
			"pxectl keeps user-data, keys and network, sealed, for 7 days after a failure, " +
			"or until the machine is deployed,\nreleased or deleted. " +
			"A cancelled deployment cannot be retried: start a new one with `pxectl deploy`.",
		Example:           "  pxectl deployment retry web1 --wait",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			var started []api.Deployment
			var errs []error
			for _, ref := range args {
				d, err := client.RetryDeployment(cmd.Context(), ref)
				if err != nil {
					errs = append(errs, about(ref, err))
					continue
				}
				started = append(started, d)
			}
			return c.watchToEnd(cmd.Context(), client, started, joinErrors(errs), waiting)
		},
	}
	waiting.add(cmd, "for the proof that the new systems run", "; the deployments go on")
	return cmd
}

func (c *cli) deploymentCancel() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel DEPLOYMENT|MACHINE...",
		Short: "Cancel deployments; a disk that was being written does not boot",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.cancelAll(cmd.Context(), client, args)
		},
	}
}

func (c *cli) cancelAll(ctx context.Context, client *api.Client, refs []string) error {
	var cancelled []api.Deployment
	var errs []error
	for _, ref := range refs {
		d, err := client.CancelDeployment(ctx, ref)
		if err != nil {
			errs = append(errs, about(ref, err))
			continue
		}
		cancelled = append(cancelled, d)
	}
	if len(cancelled) > 0 {
		if err := c.print(cancelled, deploymentIDs(cancelled),
			func(t *table) { c.deploymentRows(t, cancelled) }); err != nil {
			return err
		}
		if c.output == "table" {
			c.sayPower(ctx, client, cancelled)
		}
	}
	return joinErrors(errs)
}

// sayPower says what the runs that were cancelled have done to the power of their machines.
func (c *cli) sayPower(ctx context.Context, client *api.Client, cancelled []api.Deployment) {
	for _, d := range cancelled {
		name := machineOf(d)
		m, err := client.Machine(ctx, string(d.Machine))
		switch cut := m.Interrupted; {
		case err == nil && cut != nil && cut.Run == d.ID && cut.On:
			fmt.Fprintf(c.err, "%s was switched off and on for it; `pxectl power off %s` switches it off\n",
				name, name)
		case err == nil && cut != nil && cut.Run == d.ID:
			fmt.Fprintf(c.err, "%s was switched off for it; `pxectl power on %s` switches it on\n", name,
				name)
		default:
			fmt.Fprintf(c.err, "the power of %s stays as it is; `pxectl power off %s` switches it off\n",
				name, name)
		}
	}
}
