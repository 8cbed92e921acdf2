package main

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
)

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the versions of pxectl and of the appliance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
			defer cancel()
			both := struct {
				Client    api.VersionInfo  `json:"client"`
				Appliance *api.VersionInfo `json:"appliance"`
			}{Client: api.VersionInfo{Version: version, Go: runtime.Version()}}
			running := "not running at " + c.socket
			switch v, err := client.Version(ctx); {
			case err == nil:
				both.Appliance, running = &v, v.Version+" ("+v.Go+")"
			case !errors.Is(err, api.ErrUnreachable):
				running = err.Error()
			}
			return c.print(both, []string{version}, func(t *table) {
				t.field("pxectl", both.Client.Version+" ("+both.Client.Go+")")
				t.field("appliance", running)
			})
		},
	}
}
