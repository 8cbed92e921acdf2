// Command pxectl is the appliance and the tool that talks to it: `pxectl serve` runs the appliance, and most
// other commands call its API. Each verb has a file of its own.
//
// Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 timed out.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, time.Now))
}

// run executes one command and returns the exit code.
func run(args []string, in io.Reader, out, errOut io.Writer, now func() time.Time) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	c := &cli{in: in, out: out, err: errOut, now: now}
	root := c.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !c.started {
		err = usageError{err, "run `" + cmd.CommandPath() + " --help`"}
	}
	report(errOut, err)
	return exitCode(err)
}
