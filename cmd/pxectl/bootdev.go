package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

func (c *cli) bootdevCommand() *cobra.Command {
	var labels string
	var persistent, legacy bool
	devices := []string{
		string(power.DevicePXE), string(power.DeviceDisk), string(power.DeviceCDROM),
		string(power.DeviceBIOS), string(power.DeviceNone),
	}
	cmd := &cobra.Command{
		Use:   "bootdev " + strings.Join(devices, "|") + " MACHINE...",
		Short: "Set what machines boot from, and read it back",
		Long: "Set what machines boot from and read it back: " +
			"for the next boot, or for all with --persistent.\n" +
			"\"none\" gives the choice back to the firmware. \"bios\" is the setup screen.",
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string,
			part string,
		) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return devices, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeMachines(cmd, args, part)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(devices, args[0]) {
				return usagef("boot device %q: have %s", args[0], strings.Join(devices, ", "))
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			machines, err := c.pickSome(cmd.Context(), client, args[1:], labels)
			if err != nil {
				return err
			}
			b := api.BootDevice{Device: power.Device(args[0]), Persistent: persistent}
			if legacy {
				b.EFI = new(bool)
			}
			return c.setBoot(cmd, client, machines, b)
		},
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().BoolVar(&persistent, "persistent", false, "for every boot, not only the next one")
	cmd.Flags().BoolVar(&legacy, "legacy", false,
		"leave out the EFI bit, even for a machine with UEFI firmware")
	return cmd
}

type bootAnswer struct {
	Machine string         `json:"machine"`
	Boot    api.BootDevice `json:"boot"`
}

func (c *cli) setBoot(
	cmd *cobra.Command, client *api.Client, machines []inventory.Machine, b api.BootDevice,
) error {
	answers, err := gather(machines, func(m inventory.Machine) (bootAnswer, error) {
		read, err := client.SetBootDevice(cmd.Context(), string(m.ID), b)
		return bootAnswer{m.Name, read}, err
	})
	return c.printAnswers(answers, len(answers), "BOOT", func(i int) (machine, said string) {
		return answers[i].Machine, bootWords(answers[i].Boot)
	}, err)
}

func bootWords(b api.BootDevice) string {
	return power.Boot{Device: b.Device, Persistent: b.Persistent, Unread: b.Unread, EFI: b.EFI != nil &&
		*b.EFI}.String()
}
