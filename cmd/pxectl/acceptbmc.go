package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// askWord in place of an address in --accept-bmc shows the reported addresses, and asks about them.
const askWord = "ask"

// acceptFlag is --accept-bmc: the BMC addresses that somebody has seen and accepts. What a machine reports
// when the command runs may be another one.
type acceptFlag struct {
	given []string
}

func (f *acceptFlag) add(cmd *cobra.Command, more string) {
	cmd.Flags().StringSliceVar(&f.given, "accept-bmc", nil,
		"accept the BMC at this `address`, which the machine has reported: from then on, commands go there. "+
			"Of several machines, MACHINE=ADDRESS; can be repeated"+more)
}

func (f *acceptFlag) asks() bool { return slices.Contains(f.given, askWord) }

// named returns the addresses that were given, by the machine that each is for.
func (f *acceptFlag) named(machines []inventory.Machine) (map[inventory.MachineID]string, error) {
	all := map[inventory.MachineID]string{}
	for _, given := range f.given {
		if given == askWord {
			continue
		}
		ref, address, ok := strings.Cut(given, "=")
		switch {
		case !ok && len(machines) == 1:
			ref, address = string(machines[0].ID), given
		case !ok:
			return nil, usageError{
				usagef("--accept-bmc %s is of one machine, these are %d: %s", given, len(machines),
					nameList(machines)), "say MACHINE=ADDRESS for each",
			}
		}
		canonical, err := power.Canonical(address)
		if err != nil {
			return nil, usage(fmt.Errorf("--accept-bmc %s: %w", given, err))
		}
		i, ok := inventory.Find(machines, ref)
		if !ok {
			return nil, usagef("--accept-bmc %s: %s is none of these machines: %s", given, ref,
				nameList(machines))
		}
		if other := all[machines[i].ID]; other != "" && other != canonical {
			return nil, usagef("--accept-bmc: either %s or %s is the BMC of %s", other, canonical,
				machines[i].Name)
		}
		all[machines[i].ID] = canonical
	}
	return all, nil
}

// askBMCs shows the BMCs that machines have reported, and asks whether they are accepted. It returns what it
// has shown. Without a terminal nobody sees them, and hint is the next move.
func (c *cli) askBMCs(
	ctx context.Context, machines []inventory.Machine, hint string,
) (map[inventory.MachineID]string, error) {
	shown := map[inventory.MachineID]string{}
	for _, m := range machines {
		p := m.BMC.Proposed
		instead := ""
		if m.BMC.Address != "" {
			instead = ", instead of " + m.BMC.Address
		}
		fmt.Fprintln(c.err,
			clean(fmt.Sprintf("%s: BMC at %s, %s%s", m.Name, p.Address, c.reported(*p), instead)))
		shown[m.ID] = p.Address
	}
	if len(shown) == 0 {
		return shown, nil
	}
	if _, ok := terminal(c.in); !ok {
		first := machines[0]
		return nil, usageError{
			usagef("%s would be accepted, and there is no terminal to ask on",
				count(len(shown), "reported BMC")),
			fmt.Sprintf("name those that are right, as --accept-bmc %s=%s%s", first.Name,
				first.BMC.Proposed.Address, hint),
		}
	}
	return shown, c.goOn(ctx, "These BMCs are accepted: pxectl logs in there and sends commands.")
}

// reporting returns the machines that report a BMC that nobody has accepted, as far as also is true of them.
// It leaves out those whose BMC is named.
func reporting(
	machines []inventory.Machine, named map[inventory.MachineID]string, also func(inventory.Machine) bool,
) (those []inventory.Machine) {
	for _, m := range machines {
		if named[m.ID] == "" && m.BMC.Proposed != nil && also(m) {
			those = append(those, m)
		}
	}
	return those
}

// approvedBMCs returns the addresses that an approval accepts: those that are named, and those that somebody
// says yes to.
func (c *cli) approvedBMCs(
	ctx context.Context, machines []inventory.Machine, f acceptFlag,
) (named, all map[inventory.MachineID]string, err error) {
	if named, err = f.named(machines); err != nil {
		return nil, nil, err
	}
	asked, err := c.askBMCs(ctx, reporting(machines, named, func(m inventory.Machine) bool {
		return m.State == inventory.Discovered && m.BMC.Address == "" // else an operator has set another one
	}), "; or let them in without, by --no-bmc")
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(asked, named)
	return named, asked, nil
}

// editedBMCs returns the addresses that an edit accepts.
func (c *cli) editedBMCs(
	ctx context.Context, machines []inventory.Machine, f acceptFlag,
) (map[inventory.MachineID]string, error) {
	all, err := f.named(machines)
	if err != nil || !f.asks() {
		return all, err
	}
	those := reporting(machines, all, func(inventory.Machine) bool { return true })
	asked, err := c.askBMCs(ctx, those, "")
	maps.Copy(all, asked)
	return all, err
}
