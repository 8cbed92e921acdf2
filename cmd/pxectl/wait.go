package main

import (
	"time"

	"github.com/spf13/cobra"
)

// waitFlags are --wait and --timeout, which several commands have.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

// add adds the flags, and checks them before the command runs. until says what --wait waits for, and after
// what happens when the time is over.
func (f *waitFlags) add(cmd *cobra.Command, until, after string) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait "+until)
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "with --wait: stop waiting after this time"+after)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if f.timeout != 0 && !f.wait {
			return usagef("--timeout needs --wait")
		}
		return nil
	}
}
