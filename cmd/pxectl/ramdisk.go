package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/agent-ramdisk/initramfs"
)

func (c *cli) ramdiskCommand() *cobra.Command {
	return group("ramdisk", "The ramdisk that machines boot into", c.ramdiskBuildCommand())
}

const exampleBuild = "for example `pxectl ramdisk build --kernel kernel/boot/vmlinuz-6.1.0-56-amd64" +
	" --modules kernel/lib/modules/6.1.0-56-amd64" +
	" --out /var/lib/pxectl/ramdisk`; --help says where these come from"

func (c *cli) ramdiskBuildCommand() *cobra.Command {
	var o initramfs.Options
	cmd := &cobra.Command{
		Use:   "build --kernel VMLINUZ --modules LIB/MODULES/VERSION|none --out DIR",
		Short: "Build the ramdisk for a kernel",
		Long: `Build puts the agent, a shell with tools, and a kernel's drivers together into the ramdisk
that machines boot into, and writes DIR/ARCH/vmlinuz and DIR/ARCH/initrd.

Kernel and modules come from a distribution's kernel package, which need not be installed:

    apt-get download linux-image-6.1.0-56-amd64
    dpkg-deb -x linux-image-6.1.0-56-amd64_*.deb kernel
    pxectl ramdisk build --kernel kernel/boot/vmlinuz-6.1.0-56-amd64 \
        --modules kernel/lib/modules/6.1.0-56-amd64 --out /var/lib/pxectl/ramdisk`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Kernel == "" || o.Modules == "" || o.Out == "" {
				return usageError{
					usagef("give --kernel, --modules (or --modules none) and --out"), exampleBuild,
				}
			}
			if initramfs.Targets[o.Arch] == "" {
				return usagef("--arch %q: have %s", o.Arch,
					strings.Join(slices.Sorted(maps.Keys(initramfs.Targets)), ", "))
			}
			if o.Modules == "none" {
				o.Modules = ""
			}
			m, err := initramfs.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			dir := filepath.Join(o.Out, o.Arch)
			if c.output != "table" {
				return c.print(m, []string{dir}, nil)
			}
			fmt.Fprintf(c.out, "%s: kernel %s (%.1f MiB), ramdisk %.1f MiB with %d modules\n",
				dir, m.Kernel, mib(m.KernelBytes), mib(m.InitrdBytes), m.Modules)
			if o.Firmware != "" {
				fmt.Fprintf(c.out, "firmware: %d files taken, %d not found\n", len(m.Firmware),
					len(m.Missing))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Kernel, "kernel", "", "the kernel (vmlinuz)")
	f.StringVar(&o.Modules, "modules", "",
		"folder of its modules, lib/modules/VERSION; \"none\" for a kernel that has all drivers built in")
	f.StringVar(&o.Firmware, "firmware", "", "folder with firmware files for network cards, lib/firmware")
	f.StringSliceVar(&o.Extra, "with", nil,
		"add `modules`, by name or by folder below kernel/ (drivers/net/ethernet/sfc/)")
	f.StringVar(&o.Arch, "arch", runtime.GOARCH, "architecture of the machines: amd64 or arm64")
	f.StringVar(&o.Out, "out", "", "folder to write to")
	return cmd
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
