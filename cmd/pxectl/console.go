package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (c *cli) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "console MACHINE", Short: "Attach to a machine's serial console; ~. leaves",
		Long: "Attach to a machine's serial console. " +
			"On a terminal every key goes to the machine, but for these at the\n" +
			"beginning of a line: ~. leaves, ~~ sends one ~. " +
			"When standard input is no terminal, all of it is sent, and\n" +
			"the console stays attached until the machine hangs up or you interrupt it.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			m, err := c.pickOne(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			conn, err := client.Console(cmd.Context(), string(m.ID))
			if err != nil {
				return err
			}
			defer conn.Close()

			keys := c.in
			if tty, ok := terminal(c.in); ok {
				fmt.Fprintf(c.err, "[console of %s; ~. at the beginning of a line leaves]\n", m.Name)
				was, err := term.MakeRaw(int(tty.Fd()))
				if err != nil {
					return fmt.Errorf("terminal: %w", err)
				}
				defer func() {
					_ = term.Restore(int(tty.Fd()), was)
					fmt.Fprintf(c.err, "\n[console of %s closed]\n", m.Name)
				}()
				keys = newEscapes(c.in)
			}
			sent, received := make(chan error, 1), make(chan error, 1)
			go func() { _, err := io.Copy(conn, keys); sent <- err }()
			go func() { _, err := io.Copy(c.out, conn); received <- err }()
			for {
				select {
				case err := <-sent:
					if errors.Is(err, errLeave) {
						return nil
					}
					sent = nil // there is nothing more to send; the machine's output still counts
				case err := <-received:
					return err
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
}

var errLeave = errors.New("console left by the person")

// escapes reads keys and acts on ~. and ~~ at the beginning of a line, as ssh and ipmitool do.
type escapes struct {
	r       io.Reader
	atStart bool // of a line
	tilde   bool // held back: a ~ at the beginning of a line
	left    bool
}

func newEscapes(r io.Reader) *escapes { return &escapes{r: r, atStart: true} }

func (e *escapes) Read(b []byte) (int, error) {
	if e.left {
		return 0, errLeave
	}
	// A key can become two, so half of b is read at a time.
	if len(b) < 2 {
		return 0, io.ErrShortBuffer
	}
	in := make([]byte, len(b)/2)
	n, err := e.r.Read(in)
	out := b[:0]
	for _, key := range in[:n] {
		if e.tilde {
			e.tilde = false
			switch key {
			case '.':
				e.left = true
				if len(out) == 0 {
					return 0, errLeave
				}
				return len(out), nil
			case '~':
			default:
				out = append(out, '~')
			}
			out = append(out, key)
			e.atStart = key == '\r' || key == '\n'
			continue
		}
		if e.atStart && key == '~' {
			e.tilde, e.atStart = true, false
			continue
		}
		out = append(out, key)
		e.atStart = key == '\r' || key == '\n'
	}
	if err != nil && e.tilde && len(out) < len(b) {
		out, e.tilde = append(out, '~'), false
	}
	return len(out), err
}
