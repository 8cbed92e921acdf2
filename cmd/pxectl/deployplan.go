package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

// plan shows what deployments of the machines would do. It fails when one would be refused, so that scripts
// can ask first.
func (c *cli) plan(
	ctx context.Context, client *api.Client, machines []inventory.Machine, r inventory.DeployRequest,
) error {
	c.noteUnaccepted(machines)
	plans, err := gather(machines, func(m inventory.Machine) (deploy.Plan, error) {
		return client.Plan(ctx, string(m.ID), r)
	})
	if len(plans) > 0 {
		names := make([]string, len(plans))
		for i, p := range plans {
			names[i] = p.MachineName
		}
		if c.output == "table" {
			for i, p := range plans {
				if i > 0 {
					fmt.Fprintln(c.out)
				}
				if err := c.showPlan(p); err != nil {
					return err
				}
			}
		} else if err := c.print(plans, names, nil); err != nil {
			return err
		}
	}
	errs := []error{err}
	for _, p := range plans {
		if p.Refused != nil {
			errs = append(errs,
				about(p.MachineName, &inventory.Problem{
					Code: p.Refused.Code, Detail: p.Refused.Detail, Hint: p.Refused.Hint,
				}))
		}
	}
	return joinErrors(errs)
}

func (c *cli) showPlan(p deploy.Plan) error {
	t := newTable(c.out)
	t.field("machine", p.MachineName)
	t.field("image", p.ImageName+" ("+p.ImageID[:min(12, len(p.ImageID))]+")")
	if p.Disk != nil {
		t.field("disk", strings.Join(words(p.Disk.Name, p.Disk.Transport, humanize.Bytes(p.Disk.Bytes),
			p.Disk.Vendor, p.Disk.Model, prefixed("serial=", p.Disk.Serial)), " "))
		on := strings.Join(p.Disk.Content, ", ")
		switch {
		case p.Holds != "":
			on = strings.Join(words("the system of deployment "+string(p.Holds), on), ": ")
		case on == "":
			on = "nothing that is known"
		}
		t.field("holds", on)
		t.field("erased", "all of "+p.Disk.Name)
		t.field("untouched", inventory.ListDisks(p.Untouched))
	}
	t.field("travels", "at most "+binary(p.AtMost))
	if p.Refused != nil {
		t.field("refused", p.Refused.Detail)
	}
	return t.w.Flush()
}
