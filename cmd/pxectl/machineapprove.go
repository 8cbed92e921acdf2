package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) machineApprove() *cobra.Command {
	var labels string
	var all, noBMC bool
	var accept acceptFlag
	var waiting waitFlags
	cmd := &cobra.Command{
		Use: "approve MACHINE... | --all", Short: "Let discovered machines in, with their BMCs",
		Long: "Let discovered machines in. " +
			"This also accepts the BMC that a machine has reported: from then on, pxectl logs in\n" +
			"there and sends commands. `pxectl machine list` shows it with a ? behind it. " +
			"On a terminal the command shows the\naddresses and asks once. " +
			"Scripts name them with --accept-bmc, or let the machines in with --no-bmc. A machine\n" +
			"that has reported another address than the one that was shown or named is refused.\n\n" +
			"With --wait the command ends when the machines have been inspected and are available.\n" +
			"`pxectl deploy --all` takes them then.",
		Example: "  pxectl machine approve --all --wait --timeout 10m\n" +
			"  pxectl machine approve m1 --accept-bmc 192.0.2.7\n" +
			"  pxectl machine approve m1 m2 --accept-bmc m1=192.0.2.7,m2=192.0.2.8",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if noBMC && len(accept.given) > 0 {
				return usagef("either --accept-bmc or --no-bmc")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			var machines []inventory.Machine
			if all {
				if len(args) > 0 || labels != "" {
					return usagef("either --all or machines")
				}
				if machines, err = c.pick(cmd.Context(), client, nil, ""); err != nil {
					return err
				}
				machines = slices.DeleteFunc(machines, func(m inventory.Machine) bool {
					return m.State != inventory.Discovered
				})
				if len(machines) == 0 {
					fmt.Fprintln(c.err, "no machine waits for approval")
				}
			} else if len(args) == 0 && labels == "" {
				return usageError{
					usagef("which machines? give names, ids, MACs, patterns, --selector, " +
						"or --all for every one that waits"),
					"`pxectl machine list --state discovered` lists those",
				}
			} else if machines, err = c.pickSome(cmd.Context(), client, args, labels); err != nil {
				return err
			}
			var named, bmcs map[inventory.MachineID]string
			if !noBMC {
				if named, bmcs, err = c.approvedBMCs(cmd.Context(), machines, accept); err != nil {
					return err
				}
			}
			approved, err := c.change(machines, func(m inventory.Machine) (inventory.Machine, error) {
				bmc := bmcs[m.ID]
				return client.Approve(cmd.Context(), string(m.ID), deploy.Approval{BMC: &bmc})
			}, func(before, after inventory.Machine) string {
				if before.State == inventory.Discovered && before.BMC.Proposed != nil &&
					named[before.ID] == before.BMC.Proposed.Address {
					return fmt.Sprintf("%s: its BMC at %s is accepted, %s", after.Name, after.BMC.Address,
						c.reported(*before.BMC.Proposed))
				}
				return ""
			})
			if waiting.wait && len(approved) > 0 {
				ctx := cmd.Context()
				if waiting.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, waiting.timeout)
					defer cancel()
				}
				var waited error
				approved, waited = untilAvailable(ctx, client, approved)
				err = joinErrors([]error{err, waited})
			}
			if printed := c.showChanged(approved); printed != nil {
				return printed
			}
			return err
		},
	}
	waiting.add(cmd, "until the machines have been inspected and are available", "")
	accept.add(cmd, "")
	cmd.Flags().BoolVar(&noBMC, "no-bmc", false, "let the machines in without their BMCs")
	selectorFlag(cmd, &labels)
	cmd.Flags().BoolVar(&all, "all", false, "every machine that waits for approval")
	return cmd
}

// reported says when an agent reported the address of its BMC, and from where.
func (c *cli) reported(p inventory.BMCProposal) string {
	s := "reported " + c.ago(p.At)
	if p.From != "" {
		s += " from " + p.From
	}
	return s
}

// untilAvailable waits until the approved machines have been inspected or cannot be. It returns the last
// known state of each.
func untilAvailable(
	ctx context.Context, client *api.Client, machines []inventory.Machine,
) ([]inventory.Machine, error) {
	tick := time.NewTicker(lookEvery + time.Duration(len(machines))*5*time.Millisecond)
	defer tick.Stop()
	for {
		var waiting []inventory.Machine
		for i, m := range machines {
			switch m.State {
			case inventory.Discovered, inventory.Enrolled, inventory.Inspecting:
			default:
				continue
			}
			now, err := client.Machine(ctx, string(m.ID))
			if err != nil && ctx.Err() == nil {
				return machines, err
			}
			if err == nil {
				machines[i] = now
			}
			waiting = append(waiting, machines[i])
		}
		if len(waiting) == 0 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return machines, &inventory.Problem{
				Code: inventory.CodeTimeout,
				Detail: fmt.Sprintf("%s: not available when the time was over (%s)", nameList(waiting),
					statesOf(waiting)),
				Hint: "`pxectl why " + waiting[0].Name + "` says how far it came",
			}
		}
		return machines, fmt.Errorf("interrupted: %s not available yet", nameList(waiting))
	}
	var errs []error
	for _, m := range machines {
		if m.State == inventory.Failed && m.Failure != nil {
			errs = append(errs, &inventory.Problem{
				Code:   inventory.CodeInternal,
				Detail: m.Name + ": " + m.Failure.Step + ": " + m.Failure.Reason,
				Hint:   m.Failure.Hint,
			})
		}
	}
	return machines, joinErrors(errs)
}
