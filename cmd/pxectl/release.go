package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) releaseCommand() *cobra.Command {
	return c.eraseCommand(&cobra.Command{
		Use: "release MACHINE...", Short: "Take the systems of machines away and erase their disks",
		Long: "Take the systems of machines away and erase their disks: all of them but those that are removable, on USB or read-only.\n" +
			"The machines are available when every disk has proved by reading back that it is erased.\n" +
			"`pxectl machine erasures` lists what was done. --quick clears labels and partition tables only: the data stays.",
		Example: "  pxectl release web1 --wait\n  pxectl release 'web*' --quick",
	}, (*api.Client).Release)
}

func (c *cli) machineClean() *cobra.Command {
	return c.eraseCommand(&cobra.Command{
		Use: "clean MACHINE...", Short: "Erase the disks of machines that are available",
		Long: "Erase the disks of machines that are available, as `pxectl release` does.",
	}, (*api.Client).Clean)
}

func (c *cli) eraseCommand(cmd *cobra.Command, begin func(*api.Client, context.Context, string, inventory.EraseRequest) (api.Deployment, error)) *cobra.Command {
	var labels string
	var r inventory.EraseRequest
	var waiting bool
	var timeout time.Duration
	cmd.ValidArgsFunction = c.completeMachines
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if timeout != 0 && !waiting {
			return usagef("--timeout is of --wait")
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		machines, err := c.pickSome(cmd.Context(), client, args, labels)
		if err != nil {
			return err
		}
		c.noteUnaccepted(machines)
		started, refused := gather(machines, func(m inventory.Machine) (api.Deployment, error) {
			return begin(client, cmd.Context(), string(m.ID), r)
		})
		if len(started) == 0 {
			return refused
		}
		return c.seeThrough(cmd.Context(), client, started, refused, waiting, timeout)
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().BoolVar(&r.Quick, "quick", false, "clear labels and partition tables only; the data is not erased")
	cmd.Flags().BoolVar(&waiting, "wait", false, "wait until the machines are available")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --wait: how long at most; the erasing goes on")
	return cmd
}

func (c *cli) machineErasures() *cobra.Command {
	return &cobra.Command{
		Use: "erasures [MACHINE|SERIAL|WWN...]", Short: "List the disks that were erased, and what proves it",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{""}
			}
			records := []inventory.Erasure{}
			for _, of := range args {
				found, err := client.Erasures(cmd.Context(), of)
				if err != nil {
					return err
				}
				if len(found) == 0 && of != "" {
					return &inventory.Problem{Code: inventory.CodeNotFound, Detail: "no record that a disk of " + of + " was erased", Hint: "`pxectl machine erasures` lists all records"}
				}
				records = append(records, found...)
			}
			serials := make([]string, len(records))
			for i, r := range records {
				serials[i] = r.Disk.Serial
			}
			return c.print(records, serials, func(t *table) {
				t.row("AT", "MACHINE", "DISK", "SERIAL", "METHOD", "TOOK", "PROOF")
				for _, r := range records {
					t.row(stamp(r.At), r.MachineName, r.Disk.Name, r.Disk.Serial, r.Method, took(time.Duration(r.TookMS)*time.Millisecond),
						strings.Join(words(r.Proof, prefixed("passed over: ", strings.Join(r.Passed, "; "))), "; "))
				}
			})
		},
	}
}
