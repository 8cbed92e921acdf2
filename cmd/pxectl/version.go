package main

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
)

// notAnswering says why the appliance did not tell its version.
func notAnswering(socket string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "no permission to ask at " + socket + ": run as root, or as a member of the socket's group"
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return "not running at " + socket
	case err != nil:
		return err.Error()
	}
	return ""
}

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
			v, err := client.Version(ctx)
			running := notAnswering(c.socket, err)
			if err == nil {
				both.Appliance, running = &v, v.Version+" ("+v.Go+")"
			}
			return c.print(both, []string{version}, func(t *table) {
				t.field("pxectl", both.Client.Version+" ("+both.Client.Go+")")
				t.field("appliance", running)
			})
		},
	}
}
