package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/appliance/config"
)

func (c *cli) configCommand() *cobra.Command {
	return group("config", "Check the appliance's configuration", &cobra.Command{
		Use:   "check [FILE]",
		Short: "Report every mistake of a configuration file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) > 0 {
				file = args[0]
			}
			if _, err := config.Load(file); err != nil {
				return err
			}
			if c.output != "table" {
				return c.print(map[string]string{"file": file}, []string{file}, nil)
			}
			fmt.Fprintf(c.out, "%s is in order\n", file)
			return nil
		},
	})
}
