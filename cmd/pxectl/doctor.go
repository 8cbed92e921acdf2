package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/doctor"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) doctorCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "doctor [--config [FILE]]",
		Short: "Check the appliance itself: network, ports, other DHCP servers, BMCs, disk",
		Long: "Ask the running appliance to check itself, " +
			"and say for each check whether it passes, warns or fails, and what to do.\n\n" +
			"With --config it checks what it can without a running appliance, from the configuration file\n" +
			"(default " + defaultConfig + "). The exit code is 1 when a check fails.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, ok := terminal(c.err); ok {
				fmt.Fprintf(c.err,
					"checking; other DHCP servers have %v to answer, "+
						"as some ping an address for 3s before they offer it …\n",
					dhcpd.AskFor)
			}
			var checks []api.Check
			switch {
			case cmd.Flags().Changed("config"):
				if len(args) > 0 {
					config = args[0]
				}
				checks = doctor.File(cmd.Context(), config)
			case len(args) > 0:
				return usagef("%q: a configuration goes with --config", args[0])
			default:
				client, err := c.client()
				if err != nil {
					return err
				}
				checks, err = client.Doctor(cmd.Context())
				if p, ok := errors.AsType[*inventory.Problem](err); ok && errors.Is(err, api.ErrUnreachable) {
					hinted := *p
					hinted.Hint += "; `pxectl doctor --config` checks what it can without it"
					return &hinted
				}
				if err != nil {
					return err
				}
			}
			return c.showChecks(checks)
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig,
		"check from this configuration `file`, without a running appliance")
	cmd.Flags().Lookup("config").NoOptDefVal = defaultConfig
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

// showChecks prints the checks. Its error, when one failed, counts as reported.
func (c *cli) showChecks(checks []api.Check) error {
	var names []string
	count := map[api.Status]int{}
	for _, k := range checks {
		names = append(names, k.Subject)
		count[k.Status]++
	}
	var err error
	if c.output == "table" {
		t := newTable(c.out)
		for _, k := range checks {
			t.row(k.Status, k.Subject, k.Text)
			if k.Next != "" {
				fmt.Fprintf(t.w, "\t\t  next: %s\n", clean(k.Next))
			}
		}
		err = t.w.Flush()
	} else {
		err = c.print(api.Checkup{Checks: checks}, names, nil)
	}
	if err == nil && count[api.Fail] > 0 {
		err = reported{fmt.Errorf("%d of %d checks failed", count[api.Fail], len(checks))}
	}
	return err
}
