package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) releaseCommand() *cobra.Command {
	return c.eraseCommand(&cobra.Command{
		Use: "release MACHINE...", Short: "Take machines out of use and erase their disks",
		Long: "Take machines out of use and erase all their disks, except those that are removable, " +
			"on USB or read-only.\n" +
			"A machine is available when every disk has proved by reading back that it is erased.\n" +
			"`pxectl machine erasures` lists the erased disks. " +
			"--quick clears labels and partition tables only: the data stays.\n\n" +
			"On a terminal the command shows the disks and asks before it begins. Scripts use --yes.",
		Example: "  pxectl release web1 --wait\n  pxectl release 'web*' --quick --yes",
	}, deploy.Wish{Release: true}, (*api.Client).Release)
}

func (c *cli) machineClean() *cobra.Command {
	return c.eraseCommand(&cobra.Command{
		Use: "clean MACHINE...", Short: "Erase the disks of machines that are available",
		Long: "Erase the disks of machines that are available, as `pxectl release` does.",
	}, deploy.Wish{Clean: true}, (*api.Client).Clean)
}

func (c *cli) eraseCommand(
	cmd *cobra.Command, wish deploy.Wish, begin func(*api.Client, context.Context, string,
		inventory.EraseRequest) (api.Deployment, error),
) *cobra.Command {
	var labels string
	var r inventory.EraseRequest
	var yes bool
	var waiting waitFlags
	cmd.ValidArgsFunction = c.completeMachines
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		machines, err := c.pickSome(cmd.Context(), client, args, labels)
		if err != nil {
			return err
		}
		if !yes {
			if err := c.refusals(cmd.Context(), client, machines, wish); err != nil {
				return err
			}
			if err := c.confirmErase(cmd.Context(), client, machines, r.Quick); err != nil {
				return err
			}
		}
		c.noteUnaccepted(machines)
		started, refused := gather(machines, func(m inventory.Machine) (api.Deployment, error) {
			return begin(client, cmd.Context(), string(m.ID), r)
		})
		if len(started) == 0 {
			return refused
		}
		return c.watchToEnd(cmd.Context(), client, started, refused, waiting)
	}
	selectorFlag(cmd, &labels)
	cmd.Flags().BoolVar(&r.Quick, "quick", false,
		"clear labels and partition tables only; the data is not erased")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask; required without a terminal")
	waiting.add(cmd, "until the machines are available", "; the erasing goes on")
	return cmd
}

// refusals returns an error when wish is refused for every one of the machines, so that nobody is asked in
// vain.
func (c *cli) refusals(
	ctx context.Context, client *api.Client, machines []inventory.Machine, wish deploy.Wish,
) error {
	able, err := gather(machines, func(m inventory.Machine) (inventory.Machine, error) {
		m, err := client.Machine(ctx, string(m.ID)) // with its report
		if err != nil {
			return m, err
		}
		var last *inventory.Deployment
		if m.Deployment != "" {
			if d, err := client.Deployment(ctx, string(m.Deployment)); err == nil {
				last = &d.Deployment
			}
		}
		return m, wish.Refused(m, last)
	})
	if len(able) > 0 {
		return nil
	}
	return err
}

// confirmErase shows which disks will be erased, and asks for consent.
func (c *cli) confirmErase(
	ctx context.Context, client *api.Client, machines []inventory.Machine, quick bool,
) error {
	if _, ok := terminal(c.in); !ok {
		return usageError{
			usagef("the disks of %s would be erased, and there is no terminal to ask on", nameList(machines)),
			"say --yes if that is meant",
		}
	}
	for _, m := range machines {
		m, err := client.Machine(ctx, string(m.ID)) // with its disks
		if err != nil {
			return err
		}
		said := "its disks are not known"
		if m.Report != nil {
			said = inventory.ListDisks(deploy.Erases(m))
		}
		fmt.Fprintln(c.err, clean(fmt.Sprintf("%s (%s): %s", m.Name, stateWords(m), said)))
	}
	what := "These disks are erased: what is on them is gone."
	if quick {
		what = "The labels and partition tables of these disks are cleared."
	}
	return c.goOn(ctx, what)
}

func (c *cli) machineErasures() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:               "erasures [MACHINE|SERIAL|WWN...]",
		Short:             "List erased disks, newest first, each with its proof",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{""}
			}
			records, more := []inventory.Erasure{}, false
			for _, of := range args {
				found, older, err := pages(limit, func(last *inventory.Erasure,
					size int,
				) ([]inventory.Erasure, bool, error) {
					q := deploy.ErasureQuery{Of: of, Limit: size}
					if last != nil {
						q.Before = last.Seq
					}
					return client.Erasures(cmd.Context(), q)
				})
				if err != nil {
					return err
				}
				if len(found) == 0 && of != "" {
					return &inventory.Problem{
						Code:   inventory.CodeNotFound,
						Detail: "no record that a disk of " + of + " was erased",
						Hint:   "`pxectl machine erasures` lists all records",
					}
				}
				records, more = append(records, found...), more || older
			}
			if len(records) == 0 && c.output == "table" {
				fmt.Fprintln(c.out,
					"no disk has been erased yet: `pxectl release MACHINE` erases those of a machine")
				return nil
			}
			serials := make([]string, len(records))
			for i, r := range records {
				serials[i] = r.Disk.Serial
			}
			err = c.print(records, serials, func(t *table) {
				t.row("AT", "MACHINE", "DISK", "SERIAL", "METHOD", "TOOK", "PROOF")
				for _, r := range records {
					t.row(stamp(r.At), r.MachineName, r.Disk.Name, r.Disk.Serial, r.Method,
						took(time.Duration(r.TookMS)*time.Millisecond),
						strings.Join(words(r.Proof, prefixed("passed over: ", strings.Join(r.Passed, "; "))),
							"; "))
				}
			})
			if more {
				c.sayMore(limit)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "list so many at most of each that is named; 0: all")
	return cmd
}
