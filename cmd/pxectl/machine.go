package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) machineCommand() *cobra.Command {
	cmd := group("machine", "List, show, approve, add, edit and delete machines",
		c.machineList(), c.machineShow(), c.machineApprove(), c.machineAdd(), c.machineEdit(), c.machineClean(), c.machineErasures(), c.machineDelete())
	cmd.Aliases = []string{"machines"}
	return cmd
}

func (c *cli) machineList() *cobra.Command {
	var labels string
	var states []string
	cmd := &cobra.Command{
		Use: "list [MACHINE...]", Aliases: []string{"ls"}, Short: "List machines",
		Long:              "List machines. A BMC address with ? behind it was reported by the machine and not accepted: nothing is sent there.",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, s := range states {
				if !slices.Contains(inventory.States, inventory.State(s)) {
					return usagef("state %q: have %v", s, inventory.States)
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
				machines = slices.DeleteFunc(machines, func(m inventory.Machine) bool { return !slices.Contains(states, string(m.State)) })
			}
			if len(machines) == 0 && c.output == "table" {
				if labels != "" || len(states) > 0 {
					fmt.Fprintln(c.out, "no machine is like that; `pxectl machine list` lists all")
				} else {
					fmt.Fprintln(c.out, "no machines yet: power one on with network boot first in its boot order")
				}
				return nil
			}
			return c.print(machines, machineNames(machines), func(t *table) {
				t.row("NAME", "STATE", "POWER", "IMAGE", "MAC", "BMC", "HARDWARE", "SINCE")
				for _, m := range machines {
					t.row(m.Name, stateWords(m), powerWord(m.Power), m.Image, firstMAC(m), bmcWord(m.BMC), hardware(m.Hardware), c.age(m.ChangedAt))
				}
			})
		},
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().StringSliceVar(&states, "state", nil, "only machines in these states")
	return cmd
}

func machineNames(machines []inventory.Machine) []string {
	names := make([]string, len(machines))
	for i, m := range machines {
		names[i] = m.Name
	}
	return names
}

// stateWords is the state and what stands beside it.
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

// bmcWord is the accepted address of a BMC, and the reported one that is not.
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

func (c *cli) machineApprove() *cobra.Command {
	var labels string
	var all, noBMC, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "approve MACHINE... | --all", Short: "Let discovered machines in, with their BMCs",
		Long: "Let discovered machines in. The address that a machine has reported of its BMC is accepted with it: from then on, commands go\n" +
			"there. `pxectl machine list` shows the address, with ? behind it. If it changes meanwhile, the machine is not let in.\n\n" +
			"With --wait the command ends when the machines have been inspected and are available: `pxectl deploy --all` means them then.",
		Example:           "  pxectl machine approve --all --wait --timeout 10m",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout != 0 && !wait {
				return usagef("--timeout is of --wait")
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
				machines = slices.DeleteFunc(machines, func(m inventory.Machine) bool { return m.State != inventory.Discovered })
				if len(machines) == 0 {
					fmt.Fprintln(c.err, "no machine waits for approval")
				}
			} else if len(args) == 0 && labels == "" {
				return usagef("which machines? give names, ids, MACs, patterns, --selector, or --all for every one that waits")
			} else if machines, err = c.pickSome(cmd.Context(), client, args, labels); err != nil {
				return err
			}
			approved, err := c.change(machines, func(m inventory.Machine) (inventory.Machine, error) {
				bmc := ""
				if !noBMC {
					bmc = deploy.Approval{}.Accepts(m)
				}
				return client.Approve(cmd.Context(), string(m.ID), deploy.Approval{BMC: &bmc})
			}, func(before, after inventory.Machine) string {
				if before.State == inventory.Discovered && before.BMC.Proposed != nil && after.BMC.Address == before.BMC.Proposed.Address {
					return fmt.Sprintf("%s: its BMC at %s is accepted, %s", after.Name, after.BMC.Address, c.reported(*before.BMC.Proposed))
				}
				return ""
			})
			if wait && len(approved) > 0 {
				ctx := cmd.Context()
				if timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, timeout)
					defer cancel()
				}
				var waited error
				approved, waited = untilAvailable(ctx, client, approved)
				err = severally([]error{err, waited})
			}
			if printed := c.showChanged(approved); printed != nil {
				return printed
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the machines have been inspected and are available")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --wait: how long at most")
	cmd.Flags().BoolVar(&noBMC, "no-bmc", false, "accept no BMC with the machines")
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

// untilAvailable waits until machines that were approved have been inspected, or cannot be. It returns what was last seen of each.
func untilAvailable(ctx context.Context, client *api.Client, machines []inventory.Machine) ([]inventory.Machine, error) {
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
				Code: inventory.CodeTimeout, Detail: fmt.Sprintf("%s: not available when the time was over (%s)", nameList(waiting), statesOf(waiting)),
				Hint: "`pxectl why " + waiting[0].Name + "` says how far it came",
			}
		}
		return machines, fmt.Errorf("interrupted: %s not available yet", nameList(waiting))
	}
	var errs []error
	for _, m := range machines {
		if m.State == inventory.Failed && m.Failure != nil {
			errs = append(errs, &inventory.Problem{Code: inventory.CodeInternal, Detail: m.Name + ": " + m.Failure.Step + ": " + m.Failure.Reason, Hint: m.Failure.Hint})
		}
	}
	return machines, severally(errs)
}

// changeEach changes every machine and shows those that were changed.
func (c *cli) changeEach(machines []inventory.Machine, change func(inventory.Machine) (inventory.Machine, error)) error {
	changed, err := c.change(machines, change)
	if printed := c.showChanged(changed); printed != nil {
		return printed
	}
	return err
}

// change changes every machine, and says what remarks have to say of each before and after.
func (c *cli) change(machines []inventory.Machine, change func(inventory.Machine) (inventory.Machine, error), remarks ...func(before, after inventory.Machine) string) ([]inventory.Machine, error) {
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
			t.row(m.Name, stateWords(m), powerWord(m.Power), firstMAC(m), bmcWord(m.BMC), labelWords(m.Labels))
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

func (c *cli) machineAdd() *cobra.Command {
	var n deploy.NewMachine
	var macs, labels []string
	var f machineFlags
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Announce a machine before it boots",
		Example: "  pxectl machine add web1 --mac 52:54:00:12:34:56 --bmc 192.0.2.7 --bmc-user admin --bmc-password-file -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			for _, s := range macs {
				mac, err := inventory.ParseMAC(s)
				if err != nil {
					return usageError{error: err}
				}
				n.MACs = append(n.MACs, mac)
			}
			if len(macs) == 0 && n.UUID == "" {
				return usagef("%s: give --mac or --uuid, to know it by when it boots", n.Name)
			}
			set, err := labelEdits(labels, false)
			if err != nil {
				return err
			}
			for k, v := range set {
				if n.Labels == nil {
					n.Labels = map[string]string{}
				}
				n.Labels[k] = *v
			}
			if n.BMC, n.RootDisk, err = f.read(c, cmd); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.changeEach([]inventory.Machine{{Name: n.Name}}, func(inventory.Machine) (inventory.Machine, error) {
				return client.AddMachine(cmd.Context(), n)
			})
		},
	}
	cmd.Flags().StringArrayVar(&macs, "mac", nil, "MAC of a NIC that it may boot from; can be repeated")
	cmd.Flags().StringVar(&n.UUID, "uuid", "", "system UUID from SMBIOS")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label key=value; can be repeated")
	f.add(cmd)
	return cmd
}

func (c *cli) machineEdit() *cobra.Command {
	var name, maintenance, selected string
	var labels []string
	var over, acceptBMC bool
	var f machineFlags
	cmd := &cobra.Command{
		Use: "edit MACHINE...", Short: "Change names, labels, BMC, disk or maintenance of machines",
		Example: "  pxectl machine edit m1 --name web1 --label rack=a --label old-\n" +
			"  pxectl machine edit 'web*' --maintenance 'new power supplies'\n" +
			"  pxectl machine edit db1 --disk serial=S4EVNF0M\n" +
			"  pxectl machine edit 'web*' --accept-bmc",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 || cmd.Flags().NFlag() == 1 && selected != "" {
				return usageError{usagef("nothing to change"), "run `pxectl machine edit --help`"}
			}
			var e deploy.Edit
			var err error
			if e.Labels, err = labelEdits(labels, true); err != nil {
				return err
			}
			changed := cmd.Flags().Changed
			if changed("name") {
				e.Name = &name
			}
			switch {
			case acceptBMC && changed("bmc"):
				return usagef("either --bmc or --accept-bmc")
			case changed("maintenance") && over:
				return usagef("either --maintenance or --no-maintenance")
			case changed("maintenance") && maintenance == "":
				return usagef("--maintenance needs a reason; --no-maintenance ends it")
			case changed("maintenance") || over:
				e.Maintenance = &maintenance
			}
			if e.BMC, e.RootDisk, err = f.read(c, cmd); err != nil {
				return err
			}
			client, machines, err := c.picked(cmd.Context(), args, selected)
			if err != nil {
				return err
			}
			if e.Name != nil && len(machines) > 1 {
				return usagef("--name is for one machine, these are %d: %s", len(machines), nameList(machines))
			}
			if acceptBMC && reflect.DeepEqual(e, deploy.Edit{}) {
				if machines, err = proposing(machines); err != nil {
					return err
				}
			}
			return c.changeEach(machines, func(m inventory.Machine) (inventory.Machine, error) {
				e := e
				if acceptBMC && m.BMC.Proposed != nil {
					e.AcceptBMC = &m.BMC.Proposed.Address
				}
				return client.EditMachine(cmd.Context(), string(m.ID), e)
			})
		},
	}
	cmd.Flags().BoolVar(&acceptBMC, "accept-bmc", false, "accept the BMC address that the machine has reported: from then on, commands go there")
	cmd.Flags().StringVar(&name, "name", "", "new name")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label key=value, or key- to remove it; can be repeated")
	cmd.Flags().StringVar(&maintenance, "maintenance", "", "keep automation away, for this `reason`")
	cmd.Flags().BoolVar(&over, "no-maintenance", false, "end maintenance")
	selectorFlag(cmd, &selected)
	f.add(cmd)
	return cmd
}

// proposing are the machines that have reported a BMC which nobody has accepted.
func proposing(machines []inventory.Machine) ([]inventory.Machine, error) {
	those := slices.DeleteFunc(slices.Clone(machines), func(m inventory.Machine) bool { return m.BMC.Proposed == nil })
	if len(those) == 0 {
		return nil, &inventory.Problem{
			Code: inventory.CodeConflict, Detail: "no reported BMC address waits to be accepted: " + nameList(machines),
			Hint: "`pxectl machine list` shows a ? behind one that does",
		}
	}
	return those, nil
}

// labelEdits reads key=value, and key- where labels can be removed.
func labelEdits(args []string, removable bool) (map[string]*string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	edits := map[string]*string{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch bare, removed := strings.CutSuffix(arg, "-"); {
		case ok && key != "":
			edits[key] = &value
		case !ok && removed && removable && bare != "":
			edits[bare] = nil
		case removable:
			return nil, usagef("label %q: want key=value, or key- to remove it", arg)
		default:
			return nil, usagef("label %q: want key=value", arg)
		}
	}
	return edits, nil
}

func (c *cli) machineDelete() *cobra.Command {
	var labels string
	var discovered bool
	cmd := &cobra.Command{
		Use: "delete MACHINE... | --discovered", Aliases: []string{"rm"}, Short: "Forget machines; their disks stay as they are",
		Long: "Forget machines; their disks stay as they are. One that boots from the network again registers itself anew.\n" +
			"--discovered forgets every machine that waits for approval, without listing them: after a flood of them.",
		Example:           "  pxectl machine delete web1 'old*'\n  pxectl machine delete --discovered",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if discovered {
				if len(args) > 0 || labels != "" {
					return usagef("either --discovered or machines")
				}
				client, err := c.client()
				if err != nil {
					return err
				}
				n, err := client.DeleteDiscovered(cmd.Context())
				if err == nil {
					fmt.Fprintf(c.err, "%s deleted\n", count(n, "machine"))
				}
				return err
			}
			client, machines, err := c.picked(cmd.Context(), args, labels)
			if err != nil {
				return err
			}
			_, err = gather(machines, func(m inventory.Machine) (struct{}, error) {
				return struct{}{}, client.DeleteMachine(cmd.Context(), string(m.ID))
			})
			return err
		},
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().BoolVar(&discovered, "discovered", false, "every machine that waits for approval")
	return cmd
}
