package main

import (
	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

func (c *cli) powerCommand() *cobra.Command {
	var verbs []*cobra.Command
	for _, v := range []struct {
		action power.Action
		short  string
	}{
		{power.ActOn, "Switch machines on"},
		{power.ActOff, "Switch machines off at once"},
		{power.ActSoft, "Ask the operating systems to shut down"},
		{power.ActCycle, "Switch machines off and on again"},
		{power.ActReset, "Reset machines; the power stays on"},
	} {
		verbs = append(verbs, c.powerVerb(string(v.action), v.short, func(cmd *cobra.Command,
			client *api.Client, ref string,
		) (inventory.Power, error) {
			return client.Power(cmd.Context(), ref, v.action)
		}))
	}
	verbs = append(verbs,
		c.powerVerb("status", "Ask the BMCs whether the machines are on", func(cmd *cobra.Command,
			client *api.Client, ref string,
		) (inventory.Power, error) {
			return client.PowerStatus(cmd.Context(), ref)
		}))
	return group("power", "Switch machines on and off by their BMCs", verbs...)
}

type powerAnswer struct {
	Machine string          `json:"machine"`
	Power   inventory.Power `json:"power"`
}

func (c *cli) powerVerb(
	verb, short string, do func(*cobra.Command, *api.Client, string) (inventory.Power, error),
) *cobra.Command {
	var labels string
	cmd := &cobra.Command{
		Use: verb + " MACHINE...", Short: short, ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, machines, err := c.picked(cmd.Context(), args, labels)
			if err != nil {
				return err
			}
			answers, err := gather(machines, func(m inventory.Machine) (powerAnswer, error) {
				p, err := do(cmd, client, string(m.ID))
				return powerAnswer{m.Name, p}, err
			})
			return c.printAnswers(answers, len(answers), "POWER", func(i int) (machine, said string) {
				return answers[i].Machine, powerWord(answers[i].Power)
			}, err)
		},
	}
	selectorFlag(cmd, &labels)
	return cmd
}
