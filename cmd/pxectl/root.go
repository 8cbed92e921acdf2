package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
)

const defaultSocket = "/run/pxectl/pxectl.sock"

// cli is the state that all commands share.
type cli struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time

	socket  string
	output  string // one of outputs
	started bool   // arguments and flags were right, and a command began
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pxectl",
		Short: "Discover, inspect and deploy the machines of a rack",
		Long: "pxectl discovers, inspects and deploys the machines of a rack over network boot.\n\n" +
			"A MACHINE is a name, an id, a MAC or a pattern like 'web*'. Most commands take several.\n" +
			"Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 timed out.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(outputs, c.output) {
				return usagef("output %q: have %s", c.output, strings.Join(outputs, ", "))
			}
			c.started = true
			return nil
		},
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	socket := os.Getenv("PXECTL_SOCKET")
	if socket == "" {
		socket = defaultSocket
	}
	f := root.PersistentFlags()
	f.StringVar(&c.socket, "socket", socket, "the appliance's socket; PXECTL_SOCKET sets it too")
	f.StringVarP(&c.output, "output", "o", "table", strings.Join(outputs, ", "))
	root.AddGroup(
		&cobra.Group{ID: "machines", Title: "Machines:"},
		&cobra.Group{ID: "images", Title: "Images and deployments:"},
		&cobra.Group{ID: "look", Title: "What happens:"},
		&cobra.Group{ID: "appliance", Title: "The appliance:"},
	)
	inGroup := func(id string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	inGroup("machines", c.machineCommand(), c.powerCommand(), c.bootdevCommand(), c.consoleCommand())
	inGroup("images", c.deployCommand(), c.releaseCommand(), c.deploymentCommand(), c.imageCommand())
	inGroup("look", c.whyCommand(), c.doctorCommand(), c.eventsCommand(), c.leaseCommand())
	inGroup("appliance", c.serveCommand(), c.configCommand(), c.ramdiskCommand(), c.labCommand(),
		c.versionCommand())
	root.SetHelpCommandGroupID("appliance")
	root.SetCompletionCommandGroupID("appliance")
	plainArguments(root)
	strictHelp(root)
	c.wrapFlags(root)
	return root
}

// group makes a command that only has subcommands.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: askForVerb,
	}
	cmd.AddCommand(verbs...)
	return cmd
}

func (c *cli) client() (*api.Client, error) {
	client, err := api.NewClient(c.socket)
	if err != nil {
		return nil, usage(fmt.Errorf("--socket %q: %w", c.socket, err))
	}
	return client, nil
}
