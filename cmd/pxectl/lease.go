package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
)

func (c *cli) leaseCommand() *cobra.Command {
	cmd := group("lease", "List and delete DHCP leases (dhcp.mode: server)", c.leaseList(), c.leaseDelete())
	cmd.Aliases = []string{"leases"}
	return cmd
}

func (c *cli) leaseList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List leases", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Leases(cmd.Context())
			if err != nil {
				return err
			}
			if len(all) == 0 && c.output == "table" {
				fmt.Fprintln(c.out, "no leases")
				return nil
			}
			var names []string
			for _, l := range all {
				names = append(names, l.Address)
			}
			return c.print(all, names, func(t *table) {
				t.row("ADDRESS", "MAC", "MACHINE", "HOSTNAME", "STATE", "EXPIRES")
				for _, l := range all {
					t.row(l.Address, l.MAC, l.Machine, l.Hostname, leaseState(l), stamp(l.ExpiresAt))
				}
			})
		},
	}
}

func leaseState(l api.Lease) string {
	if l.Reserved {
		return l.State + ", reserved"
	}
	return l.State
}

func (c *cli) leaseDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete ADDRESS...",
		Aliases: []string{"rm"},
		Short:   "Forget leases; a client that still uses its address gets it again if it is free",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, address := range args {
				if _, err := netip.ParseAddr(address); err != nil {
					return usageError{
						usagef("address %q: want an IP address", address),
						"`pxectl lease list` lists the leases",
					}
				}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, address := range args {
				if err := client.DeleteLease(cmd.Context(), address); err != nil {
					errs = append(errs, about(address, err))
				}
			}
			return joinErrors(errs)
		},
	}
}
