package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// followTail is how many past events -f shows first.
const followTail = 10

func (c *cli) eventsCommand() *cobra.Command {
	var q api.EventQuery
	cmd := &cobra.Command{
		Use: "events", Short: "Show events, and with -f follow them",
		Long: "Show past events, oldest first. With -f, follow new ones.\n\n" +
			"With -o json each event is one line. --after SEQ goes on behind the event with that seq.",
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
			show, some := c.eventPrinter(cmd.Context(), client), false
			err = client.Events(cmd.Context(), q, func(e inventory.Event) error {
				some = true
				return show(e)
			})
			if q.Follow && errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how to leave -f
			}
			if err == nil && !some && c.output == "table" {
				fmt.Fprintln(c.out, noEvents(q))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "follow new events")
	f.StringVarP(&q.Machine, "machine", "m", "", "show events of this `machine` only (name, id or MAC)")
	f.IntVarP(&q.Tail, "tail", "n", 0,
		fmt.Sprintf("show this many past events, the newest (0: all; %d with -f)", followTail))
	f.Uint64Var(&q.After, "after", 0, "show only events with a higher seq")
	_ = cmd.RegisterFlagCompletionFunc("machine", c.completeMachines)
	return cmd
}

// noEvents says of what nothing was found.
func noEvents(q api.EventQuery) string {
	text := "no events"
	if q.Machine != "" {
		text += " of " + q.Machine
	}
	if q.After > 0 {
		return fmt.Sprintf("%s after %d", text, q.After)
	}
	return text + " yet: the first comes when a machine boots from the network"
}

// eventPrinter prints one event at a time, in the format of -o.
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
	names := nameCache{client: client}
	// The width of the machine column, which shows a MAC for an unknown machine. It only grows.
	wide := len("52:54:00:12:34:56")
	return func(e inventory.Event) error {
		who := names.of(ctx, e)
		wide = max(wide, len(who))
		_, err := fmt.Fprintf(c.out, "%s  %-*s  %-6s  %s\n", stamp(e.At), wide, clean(who),
			clean(string(e.Kind)), clean(eventText(e)))
		return err
	}
}

// eventText is an event's text, with who did it, how long it took and how often it was seen.
func eventText(e inventory.Event) string {
	text := e.Text
	var beside []string
	if took := e.Data[inventory.DataTook]; took != "" && e.Count < 2 {
		beside = append(beside, "in "+took)
	}
	if n := e.Data[inventory.DataRetransmits]; n != "" {
		beside = append(beside, n+" sent again")
	}
	if len(beside) > 0 {
		text += ", " + strings.Join(beside, ", ")
	}
	if e.Count > 1 {
		text += fmt.Sprintf(" (%d times since %s)", e.Count, stamp(e.Since))
	}
	if e.Actor != "" {
		text += " (" + e.Actor + ")"
	}
	return text
}

// A nameCache knows the present names of the machines of events, even for packets from before a machine
// registered.
type nameCache struct {
	client *api.Client
	read   time.Time
	byID   map[inventory.MachineID]string
	byMAC  map[inventory.MAC]string
}

func (b *nameCache) of(ctx context.Context, e inventory.Event) string {
	// Look up new machines and new names once. Strangers' packets are no reason to ask again.
	if _, known := b.byID[e.Machine]; b.read.IsZero() || e.Machine != "" && !known ||
		e.Kind == inventory.KindEdit && e.At.After(b.read) {
		b.load(ctx)
		if b.byID[e.Machine] == "" && e.Machine != "" {
			b.byID[e.Machine] = string(e.Machine) // it was deleted since
		}
	}
	switch {
	case e.Machine != "":
		return b.byID[e.Machine]
	case b.byMAC[e.MAC] != "":
		return b.byMAC[e.MAC]
	case e.MAC != "":
		return string(e.MAC)
	}
	return "-"
}

func (b *nameCache) load(ctx context.Context) {
	b.read = time.Now()
	machines, err := b.client.Machines(ctx)
	if err != nil && b.byID != nil {
		return
	}
	// Without a list of machines, ids and MACs serve as names.
	b.byID, b.byMAC = map[inventory.MachineID]string{}, map[inventory.MAC]string{}
	for _, m := range machines {
		b.byID[m.ID] = m.Name
		for _, mac := range m.MACs {
			b.byMAC[mac] = m.Name
		}
	}
}

// stamp is a date and a time of day, in the reader's zone.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
