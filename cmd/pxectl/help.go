package main

import (
	"bytes"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// helpWidth is the width of a help text where there is no terminal to ask. maxHelpWidth is the most at a
// terminal, because longer lines are hard to read.
const (
	helpWidth    = 80
	maxHelpWidth = 120
)

// wrapFlags breaks the lines of flags in help texts at the terminal's width. cobra does not.
func (c *cli) wrapFlags(root *cobra.Command) {
	usage := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		var text bytes.Buffer
		out := cmd.OutOrStderr()
		cmd.SetOut(&text)
		err := usage(cmd)
		cmd.SetOut(out)
		if err != nil {
			return err
		}
		wrapped := text.String()
		for _, flags := range []interface {
			FlagUsages() string
			FlagUsagesWrapped(cols int) string
		}{cmd.LocalFlags(), cmd.InheritedFlags()} {
			if long := strings.TrimRight(flags.FlagUsages(), " \n"); long != "" {
				wrapped = strings.Replace(wrapped, long,
					strings.TrimRight(flags.FlagUsagesWrapped(c.width()), " \n"), 1)
			}
		}
		_, err = io.WriteString(out, wrapped)
		return err
	})
}

func (c *cli) width() int {
	if tty, ok := terminal(c.out); ok {
		if wide, _, err := term.GetSize(int(tty.Fd())); err == nil && wide > 0 {
			return min(wide, maxHelpWidth)
		}
	}
	return helpWidth
}
