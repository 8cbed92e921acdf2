package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/diagnose"
)

// nameOf returns the name of a diagnosed machine, or the MAC that was asked about.
func nameOf(ctx context.Context, client *api.Client, d diagnose.Diagnosis, ref string) string {
	if m, err := client.Machine(ctx, string(d.Machine)); d.Machine != "" && err == nil {
		return m.Name
	}
	return ref
}

func (c *cli) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why MACHINE|MAC", Short: "Say how far a machine came, why not further, and what to do",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			// The machine is not picked from the list: a MAC that is no machine yet has events, too.
			d, err := client.Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.output != "table" {
				return c.print(d, []string{nameOf(cmd.Context(), client, d, args[0])}, nil)
			}
			fmt.Fprintln(c.out, clean(d.Sentence))
			if d.Next != "" {
				fmt.Fprintln(c.out, "  next:", clean(d.Next))
			}
			if len(d.Evidence) == 0 {
				return nil
			}
			fmt.Fprintln(c.out)
			t := newTable(c.out)
			for _, e := range d.Evidence {
				t.row(stamp(e.At), e.Kind, eventText(e))
			}
			return t.w.Flush()
		},
	}
}
