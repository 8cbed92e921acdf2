package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

var errNothingDone = errors.New("nothing was done")

// untilInterrupted returns what read returns, or errNothingDone when ctx ends first. An interrupt does not
// end a read from a terminal, so that read goes on until the process ends.
func untilInterrupted[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, errNothingDone
	}
}

// goOn says what will happen and asks for consent.
func (c *cli) goOn(ctx context.Context, what string) error {
	fmt.Fprint(c.err, what+" Go on? [y/N] ")
	line, err := untilInterrupted(ctx, func() (string, error) {
		return bufio.NewReader(c.in).ReadString('\n')
	})
	if errors.Is(err, errNothingDone) {
		fmt.Fprintln(c.err) // the ^C stands on the line of the question
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errNothingDone
}

// askSecretly reads a line that does not show.
func (c *cli) askSecretly(ctx context.Context, tty *os.File, what string) ([]byte, error) {
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	fmt.Fprint(c.err, what+": ")
	line, err := untilInterrupted(ctx, func() ([]byte, error) { return term.ReadPassword(int(tty.Fd())) })
	fmt.Fprintln(c.err)
	if errors.Is(err, errNothingDone) {
		_ = term.Restore(int(tty.Fd()), before) // the read goes on, and would do this only at its end
	} else if errors.Is(err, io.EOF) {
		err = errNothingDone
	}
	return line, err
}
