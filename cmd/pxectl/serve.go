package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/appliance"
	"github.com/pxectl/pxectl/appliance/config"
)

const defaultConfig = "/etc/pxectl/appliance.yaml"

func (c *cli) serveCommand() *cobra.Command {
	var file string
	var newDatabase bool
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the appliance", Args: cobra.NoArgs,
		Long: "Run the appliance until SIGTERM or an interrupt; it ends within 3 s. It logs to standard error.\n" +
			"After a kill or a power cut, run it again: it goes on where it stopped.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return appliance.Serve(cmd.Context(), cfg, appliance.Options{Version: version, NewDatabase: newDatabase, Log: appliance.NewLog(cfg.Log, os.Stderr)})
		},
	}
	cmd.Flags().StringVar(&file, "config", defaultConfig, "the configuration `file`")
	cmd.Flags().BoolVar(&newDatabase, "new-database", false, "begin with an empty database beside the keys and images of one that was lost")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}
