package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) machineAdd() *cobra.Command {
	var n deploy.NewMachine
	var macs, labels []string
	var f machineFlags
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Announce a machine before it boots",
		Example: "  pxectl machine add web1 --mac 52:54:00:12:34:56 --bmc 192.0.2.7" +
			" --bmc-user admin --bmc-password-file -",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			if err := inventory.CheckName(n.Name); err != nil {
				return usage(err)
			}
			for _, s := range macs {
				mac, err := inventory.ParseMAC(s)
				if err != nil {
					return usage(err)
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
			return c.changeEach([]inventory.Machine{{Name: n.Name}},
				func(inventory.Machine) (inventory.Machine, error) {
					return client.AddMachine(cmd.Context(), n)
				})
		},
	}
	cmd.Flags().StringArrayVar(&macs, "mac", nil, "`MAC` of a NIC that it may boot from; can be repeated")
	cmd.Flags().StringVar(&n.UUID, "uuid", "", "system UUID from SMBIOS")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label `key=value`; can be repeated")
	f.add(cmd)
	return cmd
}

func (c *cli) machineEdit() *cobra.Command {
	var name, maintenance, selected string
	var labels []string
	var over bool
	var accept acceptFlag
	var f machineFlags
	cmd := &cobra.Command{
		Use: "edit MACHINE...", Short: "Change names, labels, BMC, disk or maintenance of machines",
		Example: "  pxectl machine edit m1 --name web1 --label rack=a --label old-\n" +
			"  pxectl machine edit 'web*' --maintenance 'new power supplies'\n" +
			"  pxectl machine edit db1 --disk serial=S4EVNF0M\n" +
			"  pxectl machine edit web1 --accept-bmc 192.0.2.7\n" +
			"  pxectl machine edit 'web*' --accept-bmc ask",
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
				if err := inventory.CheckName(name); err != nil {
					return usage(err)
				}
				e.Name = &name
			}
			switch {
			case changed("accept-bmc") && changed("bmc"):
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
				return usagef("--name is for one machine, these are %d: %s", len(machines),
					nameList(machines))
			}
			bmcs, err := c.editedBMCs(cmd.Context(), machines, accept)
			if err != nil {
				return err
			}
			if changed("accept-bmc") && reflect.DeepEqual(e, deploy.Edit{}) {
				if machines, err = accepting(machines, bmcs); err != nil {
					return err
				}
			}
			return c.changeEach(machines, func(m inventory.Machine) (inventory.Machine, error) {
				e := e
				if bmc := bmcs[m.ID]; bmc != "" {
					e.AcceptBMC = &bmc
				}
				return client.EditMachine(cmd.Context(), string(m.ID), e)
			})
		},
	}
	accept.add(cmd, ". ask: show what the machines have reported, and ask")
	cmd.Flags().StringVar(&name, "name", "", "new name")
	cmd.Flags().StringArrayVar(&labels, "label", nil,
		"label `key=value`, or key- to remove it; can be repeated")
	cmd.Flags().StringVar(&maintenance, "maintenance", "",
		"put the machine into maintenance, for this `reason`: pxectl does nothing to it by itself")
	cmd.Flags().BoolVar(&over, "no-maintenance", false, "end maintenance")
	selectorFlag(cmd, &selected)
	f.add(cmd)
	return cmd
}

// accepting returns the machines whose BMC is accepted, or an error when there is none.
func accepting(
	machines []inventory.Machine, bmcs map[inventory.MachineID]string,
) ([]inventory.Machine, error) {
	those := slices.DeleteFunc(slices.Clone(machines), func(m inventory.Machine) bool {
		return bmcs[m.ID] == ""
	})
	if len(those) == 0 {
		return nil, &inventory.Problem{
			Code:   inventory.CodeConflict,
			Detail: "no reported BMC address waits to be accepted: " + nameList(machines),
			Hint:   "`pxectl machine list` shows a ? behind one that does",
		}
	}
	return those, nil
}

// labelEdits reads key=value and, where labels can be removed, key-.
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
		Use:     "delete MACHINE... | --discovered",
		Aliases: []string{"rm"},
		Short:   "Forget machines; their disks stay as they are",
		Long: "Forget machines. Their disks stay as they are. " +
			"A machine that boots from the network again registers itself anew.\n" +
			"--discovered forgets every machine that waits for approval, " +
			"such as after a flood of invented ones.",
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
