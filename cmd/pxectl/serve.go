package main

import (
	"errors"
	"io/fs"
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
		Long: "Run the appliance until SIGTERM or an interrupt; it ends within 3 s. " +
			"It logs to standard error.\n" +
			"After a kill or a power cut, run it again: it goes on where it stopped.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return whoMayServe(appliance.Serve(cmd.Context(), cfg, appliance.Options{
				Version: version, NewDatabase: newDatabase, Log: appliance.NewLog(cfg.Log, os.Stderr),
			}))
		},
	}
	cmd.Flags().StringVar(&file, "config", defaultConfig, "the configuration `file`")
	cmd.Flags().BoolVar(&newDatabase, "new-database", false,
		"begin with an empty database beside the keys and images of one that was lost")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

// whoMayServe says who runs the appliance when somebody else tried to.
func whoMayServe(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return hinted(err,
		"run it as root, or as the user that data_dir belongs to, "+
			"with CAP_NET_BIND_SERVICE for ports below 1024")
}
