package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// machineFlags are the flags that `machine add` and `machine edit` share.
type machineFlags struct {
	bmc, user, passwordFile, kgFile, disk string
}

// diskHelp is the help for disk hints; docs/machine-life.md has the operators.
const diskHelp = "a name, or name, serial, wwn, wwn_with_extension, by_path, model, vendor, hctl or transport=…, " +
	"size>=…, rotational=false, several with commas"

func (f *machineFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.bmc, "bmc", "", "address of the BMC, with :PORT if it is not 623")
	cmd.Flags().StringVar(&f.user, "bmc-user", "", "user of the BMC (default: bmc.user of appliance.yaml)")
	cmd.Flags().StringVar(&f.passwordFile, "bmc-password-file", "",
		"`file` whose first line is the BMC's password; - asks or reads standard input")
	cmd.Flags().StringVar(&f.kgFile, "bmc-kg-file", "",
		"`file` whose first line is the BMC's own key K_g: text, or 0x and hexadecimal digits; "+
			"an empty line removes it; - asks or reads standard input")
	cmd.Flags().StringVar(&f.disk, "disk", "", "`disk` to deploy to: "+diskHelp+"; none clears it")
}

// read returns the flags that were set.
func (f *machineFlags) read(
	c *cli, cmd *cobra.Command,
) (bmc deploy.BMCEdit, disk *inventory.DiskHint, err error) {
	changed := cmd.Flags().Changed
	if changed("bmc") {
		if f.bmc != "" { // "" takes it away
			if _, err := power.ParseAddress(f.bmc); err != nil {
				return bmc, nil, usage(err)
			}
		}
		bmc.Address = &f.bmc
	}
	if changed("bmc-user") {
		if err := power.CheckUser(f.user); err != nil {
			return bmc, nil, usage(err)
		}
		bmc.User = &f.user
	}
	if changed("disk") {
		var hint inventory.DiskHint
		if f.disk != "" && f.disk != "none" {
			if hint, err = inventory.ParseDiskHint(f.disk); err != nil {
				return bmc, nil, usage(err)
			}
		}
		disk = &hint
	}
	if changed("bmc-password-file") {
		password, err := c.readPassword(cmd.Context(), "BMC password", f.passwordFile)
		if err != nil {
			return bmc, nil, err
		}
		bmc.Password = &password
	}
	if changed("bmc-kg-file") {
		kg, err := c.readPassword(cmd.Context(), "BMC key K_g", f.kgFile)
		if err != nil {
			return bmc, nil, err
		}
		bmc.Kg = &kg
	}
	return bmc, disk, nil
}

// readPassword keeps passwords off the command line, where every process could read them.
func (c *cli) readPassword(ctx context.Context, what, file string) (string, error) {
	const longest = 4096
	var data []byte
	var err error
	if tty, ok := terminal(c.in); file == "-" && ok {
		data, err = c.askSecretly(ctx, tty, what)
	} else {
		in := c.in
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return "", fmt.Errorf("%s: %w", what,
					hinted(err, "the flag names a file of this host, or is - to be asked: is the path right?"))
			}
			defer f.Close()
			in = f
		}
		data, err = untilInterrupted(ctx, func() ([]byte, error) {
			return io.ReadAll(io.LimitReader(in, longest))
		})
	}
	if errors.Is(err, errNothingDone) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if _, ok := terminal(c.in); len(data) == 0 && (file != "-" || !ok) {
		return "", usageError{
			usagef("%s: there is nothing in %s", what, fileWord(file)),
			"its first line is read; an empty line takes away what was set before",
		}
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

func fileWord(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// terminal says whether a stream is a terminal, and returns its file.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
