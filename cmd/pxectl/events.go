package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// followTail is how much of the past events -f begins with.
const followTail = 10

func (c *cli) eventsCommand() *cobra.Command {
	var q api.EventQuery
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened, and with -f what happens",
		Long: "Show what happened, oldest first, and with -f what happens from now on.\n\n" +
			"With -o json each event is one line; its seq given to --after goes on where a reader stopped.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Tail < 0 {
				return usagef("--tail %d: want a number of events", q.Tail)
			}
			if q.Follow && !cmd.Flags().Changed("tail") && !cmd.Flags().Changed("after") {
				q.Tail = followTail
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			show := c.eventPrinter(cmd.Context(), client)
			err = client.Events(cmd.Context(), q, show)
			if q.Follow && errors.Is(err, context.Canceled) {
				return nil // that is how one leaves it
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on as things happen")
	f.StringVarP(&q.Machine, "machine", "m", "", "only of this `machine` (name, id or MAC)")
	f.IntVarP(&q.Tail, "tail", "n", 0, fmt.Sprintf("of what happened, only the last so many (0: all; %d with -f)", followTail))
	f.Uint64Var(&q.After, "after", 0, "only events with a higher seq")
	_ = cmd.RegisterFlagCompletionFunc("machine", c.completeMachines)
	return cmd
}

// eventPrinter shows one event at a time, as -o asks.
func (c *cli) eventPrinter(ctx context.Context, client *api.Client) func(inventory.Event) error {
	switch c.output {
	case "json":
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		return func(e inventory.Event) error { return enc.Encode(e) }
	case "yaml":
		return func(e inventory.Event) error {
			fmt.Fprintln(c.out, "---")
			return printYAML(c.out, e)
		}
	case "name":
		return func(e inventory.Event) error {
			_, err := fmt.Fprintln(c.out, e.Seq)
			return err
		}
	}
	names := map[inventory.MachineID]string{}
	wide := len("52:54:00:12:34:56") // of the machine column, which a MAC stands in for; it only grows
	return func(e inventory.Event) error {
		who := string(e.MAC)
		if e.Machine != "" {
			name, ok := names[e.Machine]
			if !ok {
				name = string(e.Machine)
				if machines, err := client.Machines(ctx); err == nil {
					for _, m := range machines {
						names[m.ID] = m.Name
					}
					if n := names[e.Machine]; n != "" {
						name = n
					}
				}
				names[e.Machine] = name
			}
			who = name
		}
		if who == "" {
			who = "-"
		}
		wide = max(wide, len(who))
		text := e.Text
		if e.Actor != "" {
			text += " (" + e.Actor + ")"
		}
		_, err := fmt.Fprintf(c.out, "%s  %-*s  %-6s  %s\n", stamp(e.At), wide, clean(who), clean(e.Kind), clean(text))
		return err
	}
}

// stamp is a time of day with its date, where the reader is.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
