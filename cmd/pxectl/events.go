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
	names := nameBook{client: client}
	wide := len("52:54:00:12:34:56") // of the machine column, which a MAC stands in for; it only grows
	return func(e inventory.Event) error {
		who := names.of(ctx, e)
		wide = max(wide, len(who))
		_, err := fmt.Fprintf(c.out, "%s  %-*s  %-6s  %s\n", stamp(e.At), wide, clean(who), clean(string(e.Kind)), clean(eventText(e)))
		return err
	}
}

// eventText is an event's line with what stands beside it: who did it, how long it took, how often it was
// seen.
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

// A nameBook says how the machines of events are called now, also of packets that came before the machine had
// registered.
type nameBook struct {
	client *api.Client
	read   time.Time
	byID   map[inventory.MachineID]string
	byMAC  map[inventory.MAC]string
}

func (b *nameBook) of(ctx context.Context, e inventory.Event) string {
	// New machines and new names are looked up once; strangers' packets are no reason to ask again.
	if _, known := b.byID[e.Machine]; b.read.IsZero() || e.Machine != "" && !known || e.Kind == inventory.KindEdit && e.At.After(b.read) {
		b.load(ctx)
		if b.byID[e.Machine] == "" && e.Machine != "" {
			b.byID[e.Machine] = string(e.Machine) // deleted since
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

func (b *nameBook) load(ctx context.Context) {
	b.read = time.Now()
	machines, err := b.client.Machines(ctx)
	if err != nil && b.byID != nil {
		return
	}
	b.byID, b.byMAC = map[inventory.MachineID]string{}, map[inventory.MAC]string{} // without machines, ids and MACs are names
	for _, m := range machines {
		b.byID[m.ID] = m.Name
		for _, mac := range m.MACs {
			b.byMAC[mac] = m.Name
		}
	}
}

// stamp is a time of day with its date, where the reader is.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
