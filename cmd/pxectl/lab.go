package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/lab"
)

// labCommand is `pxectl lab`: the virtual rack.
func (c *cli) labCommand() *cobra.Command {
	cmd := group("lab", "A virtual rack: QEMU machines with BMCs, a site DHCP server and an appliance")
	cmd.Long = "Run a virtual rack: QEMU machines with real firmware and simulated BMCs, " +
		"the site's DHCP server and an\n" +
		"appliance, in namespaces of their own. It does not touch the host's network. It needs root."
	dir := cmd.PersistentFlags().String("dir", lab.DefaultDir,
		"directory of the rack: disks, consoles, logs, sockets")
	cmd.AddCommand(c.labUp(dir), c.labStatus(dir), labPower(dir), labShell(dir), labDown(dir), labSupervise())
	return cmd
}

func (c *cli) labUp(dir *string) *cobra.Command {
	var machines, file, accel, dhcp, applianceConfig string
	var freeze, noAppliance, fresh, foreground bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a rack",
		Example: "  pxectl lab up --machines m1:bios,m2:uefi:nvme\n" +
			"  pxectl lab up --machines m1:bios:sata+sata:e1000 --no-appliance",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var cfg lab.Config
			var err error
			if file != "" {
				if cfg, err = lab.LoadConfig(file); err != nil {
					return err
				}
			}
			changed := cmd.Flags().Changed
			if machines != "" {
				if cfg.Machines, err = lab.ParseMachines(machines); err != nil {
					return usage(err)
				}
			}
			if cfg.Dir == "" || changed("dir") {
				cfg.Dir = *dir
			}
			if have := []string{lab.Dnsmasq, lab.Kea, lab.NoDHCP}; !slices.Contains(have, dhcp) {
				return usagef("--dhcp %q: have %s", dhcp, strings.Join(have, ", "))
			}
			if have := []string{"auto", "kvm", "tcg"}; !slices.Contains(have, accel) {
				return usagef("--accel %q: have %s", accel, strings.Join(have, ", "))
			}
			if changed("dhcp") {
				cfg.DHCP = dhcp
			}
			if changed("accel") {
				cfg.Accel = accel
			}
			if changed("appliance-config") {
				cfg.ApplianceConfig = applianceConfig
			}
			cfg.Freeze = cfg.Freeze || freeze
			cfg.NoAppliance = cfg.NoAppliance || noAppliance
			cfg.Fresh, cfg.Attached = fresh, foreground
			return c.runLabUp(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&machines, "machines", "",
		"machines as NAME:FIRMWARE[:DISK[+DISK]][:NIC],…; "+
			"firmware bios, uefi, uefi-rom, uefi-http, arm64, arm64-http; "+
			"disk virtio, sata, nvme, with sectors of 4096 bytes virtio-4k, nvme-4k; "+
			"NIC virtio, e1000 (default "+
			lab.DefaultMachines+")")
	f.StringVar(&file, "config", "", "YAML file that describes the rack")
	f.StringVar(&dhcp, "dhcp", lab.Dnsmasq, "the site's DHCP server: dnsmasq, kea or none")
	f.StringVar(&accel, "accel", "auto", "auto (KVM if it works here), kvm or tcg")
	f.StringVar(&applianceConfig, "appliance-config", "",
		"appliance.yaml to run the appliance with, instead of one for this rack")
	f.BoolVar(&noAppliance, "no-appliance", false, "start no appliance")
	f.BoolVar(&freeze, "freeze", false,
		"keep a copy of a machine's first disk each time it is powered on to boot from disk")
	f.BoolVar(&fresh, "fresh", false, "begin with empty disks and an empty appliance")
	f.BoolVar(&foreground, "foreground", false, "stay until interrupted, then take the rack down")
	return cmd
}

func (c *cli) runLabUp(ctx context.Context, cfg lab.Config) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	rack, err := lab.Up(ctx, cfg)
	if err != nil {
		return err
	}
	if err := c.printRack(ctx, rack); err != nil {
		return err
	}
	if c.output == "table" {
		fmt.Fprintf(c.out, "\nThe rack is up in %s. Look around: pxectl lab shell --dir %[1]s\n", rack.Dir)
	}
	if !cfg.Attached {
		return nil
	}
	if err := rack.Wait(ctx); err == nil {
		return errors.New("the rack ended by itself; see lab.log in " + rack.Dir)
	}
	return rack.Down(context.WithoutCancel(ctx))
}

func (c *cli) labStatus(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "List the rack's machines",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rack, err := lab.Attach(*dir)
			if err != nil {
				return err
			}
			return c.printRack(cmd.Context(), rack)
		},
	}
}

func (c *cli) printRack(ctx context.Context, rack *lab.Rack) error {
	machines, err := rack.Status(ctx)
	if err != nil {
		return err
	}
	return c.printMachines(machines)
}

func (c *cli) printMachines(machines []lab.Status) error {
	names := make([]string, len(machines))
	for i, m := range machines {
		names[i] = m.Name
	}
	return c.print(machines, names, func(t *table) {
		t.row("MACHINE", "FIRMWARE", "POWER", "BOOT", "MAC", "BMC", "PID", "CONSOLE")
		for _, m := range machines {
			pid := ""
			if m.PID != 0 {
				pid = fmt.Sprint(m.PID)
			}
			t.row(m.Name, m.Firmware, m.Power, m.Boot, m.MAC, m.BMC, pid, m.Console)
		}
	})
}

func labPower(dir *string) *cobra.Command {
	actions := []string{"on", "off", "soft", "cycle", "reset"}
	return &cobra.Command{
		Use:       "power on|off|soft|cycle|reset MACHINE...",
		Short:     "Switch machines on and off without their BMCs",
		Args:      cobra.MinimumNArgs(2),
		ValidArgs: actions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(actions, args[0]) {
				return usagef("power %q: have %s", args[0], strings.Join(actions, ", "))
			}
			rack, err := lab.Attach(*dir)
			if err != nil {
				return err
			}
			var errs []error
			for _, machine := range args[1:] {
				errs = append(errs, rack.Power(cmd.Context(), machine, args[0]))
			}
			return errors.Join(errs...)
		},
	}
}

func labShell(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "shell [-- COMMAND [ARGUMENT...]]",
		Short:   "Run a shell, or one command, inside the rack's namespaces",
		Example: "  pxectl lab shell -- ipmitool -I lanplus -H 10.77.0.51 -U admin -P secret chassis status",
		RunE: func(cmd *cobra.Command, args []string) error {
			rack, err := lab.Attach(*dir)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				shell := os.Getenv("SHELL")
				if shell == "" {
					shell = "/bin/sh"
				}
				args = []string{shell}
			}
			c := rack.Command(cmd.Context(), args[0], args[1:]...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			c.Env = append(os.Environ(), "debian_chroot=rack") // Debian's shell prompt shows it
			err = c.Run()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				return fmt.Errorf("lab shell: %s: %w", args[0], exit)
			}
			return err
		},
	}
}

func labDown(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the rack; its disks and logs stay",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rack, err := lab.Attach(*dir)
			if errors.Is(err, lab.ErrDown) {
				fmt.Fprintf(cmd.OutOrStdout(), "No rack is up in %s.\n", *dir)
				return nil
			}
			if err != nil {
				return err
			}
			return rack.Down(cmd.Context())
		},
	}
}

// labSupervise is the command that `lab up` starts as process 1 of the rack.
func labSupervise() *cobra.Command {
	return &cobra.Command{
		Use:    "supervise DIR",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lab.Supervise(cmd.Context(), args[0], os.Stderr)
		},
	}
}
