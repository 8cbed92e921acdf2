package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Where no terminal says how wide it is, flags fit into 80 columns, and their values have names.
func TestHelpsAreNotTooWide(t *testing.T) {
	var out bytes.Buffer
	root := (&cli{out: &out, err: &out}).rootCommand()
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		help := cmd.UsageString()
		_, flags, ok := strings.Cut(help, "\nFlags:\n")
		if !ok && cmd.HasAvailableLocalFlags() {
			t.Errorf("%s: no flags in\n%s", cmd.CommandPath(), help)
		}
		for line := range strings.Lines(flags) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > helpWidth &&
				strings.Contains(strings.TrimSpace(line), " ") { // a single word is not broken
				t.Errorf("%s: a line of %d columns: %s", cmd.CommandPath(), n, line)
			}
			if strings.Contains(line, " stringArray ") || strings.Contains(line, " strings ") {
				t.Errorf("%s: the value has no name: %s", cmd.CommandPath(), line)
			}
		}
		for _, below := range cmd.Commands() {
			look(below)
		}
	}
	look(root)
}
