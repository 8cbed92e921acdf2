package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) machineCommand() *cobra.Command {
	cmd := group("machine", "List, show, approve, add, edit and delete machines",
		c.machineList(), c.machineShow(), c.machineApprove(), c.machineAdd(), c.machineEdit(),
		c.machineClean(), c.machineErasures(), c.machineDelete())
	cmd.Aliases = []string{"machines"}
	return cmd
}

func (c *cli) machineList() *cobra.Command {
	var labels string
	var states []string
	cmd := &cobra.Command{
		Use: "list [MACHINE...]", Aliases: []string{"ls"}, Short: "List machines",
		Long: "List machines. " +
			"A ? behind a BMC address says that nobody has accepted it: pxectl sends nothing there.",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, s := range states {
				if have := reachedStates(); !slices.Contains(have, s) {
					return usagef("state %q: have %s", s, strings.Join(have, ", "))
				}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			machines, err := c.pick(cmd.Context(), client, args, labels)
			if err != nil {
				return err
			}
			if len(states) > 0 {
				machines = slices.DeleteFunc(machines, func(m inventory.Machine) bool {
					return !slices.Contains(states, string(m.State))
				})
			}
			if len(machines) == 0 && c.output == "table" {
				if labels != "" || len(states) > 0 {
					fmt.Fprintln(c.out, "no machine is like that; `pxectl machine list` lists all")
				} else {
					fmt.Fprintln(c.out,
						"no machines yet: power one on with network boot first in its boot order")
				}
				return nil
			}
			return c.print(machines, machineNames(machines), func(t *table) {
				t.row("NAME", "STATE", "POWER", "IMAGE", "MAC", "BMC", "HARDWARE", "SINCE")
				for _, m := range machines {
					t.row(m.Name, stateWords(m), powerWord(m.Power), m.Image, firstMAC(m), bmcWord(m.BMC),
						hardware(m.Hardware), c.age(m.ChangedAt))
				}
			})
		},
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().StringSliceVar(&states, "state", nil, "only machines in these `states`, several with commas")
	return cmd
}

// reachedStates returns the states that a machine can be in: nothing enters rescue yet.
func reachedStates() (names []string) {
	for _, s := range inventory.States {
		if s != inventory.Rescue {
			names = append(names, string(s))
		}
	}
	return names
}

func machineNames(machines []inventory.Machine) []string {
	names := make([]string, len(machines))
	for i, m := range machines {
		names[i] = m.Name
	}
	return names
}

// stateWords is a machine's state, with the power, maintenance and other notes beside it.
func stateWords(m inventory.Machine) string {
	var beside []string
	if m.Unverified {
		beside = append(beside, "unverified")
	}
	if m.Maintenance != nil {
		beside = append(beside, "maintenance")
	}
	if len(beside) == 0 {
		return string(m.State)
	}
	return fmt.Sprintf("%s (%s)", m.State, strings.Join(beside, ", "))
}

func powerWord(p inventory.Power) string {
	if !p.Known {
		return "?"
	}
	if p.On {
		return "on"
	}
	return "off"
}

// bmcWord is the accepted address of a BMC, and the reported one with a question mark.
func bmcWord(b inventory.BMC) string {
	if b.Proposed == nil {
		return b.Address
	}
	return strings.Join(words(b.Address, b.Proposed.Address+"?"), ", ")
}

func firstMAC(m inventory.Machine) string {
	if m.Boot != nil {
		return string(m.Boot.MAC)
	}
	if len(m.MACs) == 0 {
		return ""
	}
	return string(m.MACs[0])
}

func hardware(h *inventory.Hardware) string {
	if h == nil {
		return ""
	}
	s := fmt.Sprintf("%d cpu, %s", h.Threads, binary(h.Memory))
	switch h.Disks {
	case 0:
		return s + ", no disk"
	case 1:
		return s + ", disk " + humanize.Bytes(h.DiskBytes)
	}
	return fmt.Sprintf("%s, %s on %d disks", s, humanize.Bytes(h.DiskBytes), h.Disks)
}

// changeEach changes every machine and shows those that were changed.
func (c *cli) changeEach(
	machines []inventory.Machine, change func(inventory.Machine) (inventory.Machine, error),
) error {
	changed, err := c.change(machines, change)
	if printed := c.showChanged(changed); printed != nil {
		return printed
	}
	return err
}

// change changes every machine. It prints what each remark says about a machine before and after the change.
func (c *cli) change(
	machines []inventory.Machine, change func(inventory.Machine) (inventory.Machine, error),
	remarks ...func(before, after inventory.Machine) string,
) ([]inventory.Machine, error) {
	notes := make(map[inventory.MachineID]string)
	var mu sync.Mutex
	changed, err := gather(machines, func(m inventory.Machine) (inventory.Machine, error) {
		after, err := change(m)
		for _, remark := range remarks {
			if note := remark(m, after); err == nil && note != "" {
				mu.Lock()
				notes[after.ID] = note
				mu.Unlock()
			}
		}
		return after, err
	})
	for _, m := range changed {
		if note := notes[m.ID]; note != "" {
			fmt.Fprintln(c.err, clean(note))
		}
	}
	return changed, err
}

func (c *cli) showChanged(changed []inventory.Machine) error {
	if len(changed) == 0 {
		return nil
	}
	return c.print(changed, machineNames(changed), func(t *table) {
		t.row("NAME", "STATE", "POWER", "MAC", "BMC", "LABELS")
		for _, m := range changed {
			t.row(m.Name, stateWords(m), powerWord(m.Power), firstMAC(m), bmcWord(m.BMC),
				labelWords(m.Labels))
		}
	})
}

func labelWords(labels map[string]string) string {
	words := make([]string, 0, len(labels))
	for k, v := range labels {
		words = append(words, k+"="+v)
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}
