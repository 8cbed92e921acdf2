package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// usage marks an error as one of the command line.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{error: err}
}

// plainArguments makes a command and its subcommands say in our words what is wrong with their arguments.
func plainArguments(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		plainArguments(below)
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			return wrongArguments(cmd, args, check)
		}
	}
}

// wrongArguments says whether there are too few or too many, and how the command is used.
func wrongArguments(cmd *cobra.Command, args []string, check cobra.PositionalArgs) error {
	if cmd.HasSubCommands() {
		return usagef("%s: no command %q (have: %s)", cmd.Name(), args[0], strings.Join(verbs(cmd), ", "))
	}
	for more := args; len(more) < len(args)+4; more = append(more[:len(more):len(more)], "x") {
		if check(cmd, more) == nil {
			return usagef("too few arguments; usage: %s", cmd.UseLine())
		}
	}
	return usagef("too many arguments, from %q on; usage: %s", firstTooMany(cmd, args, check), cmd.UseLine())
}

func firstTooMany(cmd *cobra.Command, args []string, check cobra.PositionalArgs) string {
	for n := len(args) - 1; n > 0; n-- {
		if check(cmd, args[:n]) == nil {
			return args[n]
		}
	}
	return args[0]
}

// verbs returns the names of a command's subcommands.
func verbs(cmd *cobra.Command) (names []string) {
	for _, v := range cmd.Commands() {
		if v.IsAvailableCommand() {
			names = append(names, v.Name())
		}
	}
	return names
}

// askForVerb runs a command that only has subcommands.
func askForVerb(cmd *cobra.Command, _ []string) error {
	return usageError{
		usagef("%s: what to do? have: %s", cmd.Name(), strings.Join(verbs(cmd), ", ")),
		"run `" + cmd.CommandPath() + " --help`",
	}
}

// strictHelp makes cobra's own commands, help and completion, refuse arguments that they do not know. By
// themselves they print a help text and succeed.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.RunE = askForVerb
			plainArguments(cmd)
		case "help":
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if found, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
					if err != nil {
						found, rest = cmd.Root(), args
					}
					return usagef("help: %s has no command %q (have: %s)", found.CommandPath(), rest[0],
						strings.Join(verbs(found), ", "))
				}
				return nil
			}
		}
	}
}
