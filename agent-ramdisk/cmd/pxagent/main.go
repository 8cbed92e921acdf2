// Pxagent is the first process of the ramdisk (/init): it brings the machine up and runs the agent.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/pxectl/pxectl/agent-ramdisk/agent"
	"github.com/pxectl/pxectl/agent-ramdisk/blockdev"
	"github.com/pxectl/pxectl/agent-ramdisk/boot"
	"github.com/pxectl/pxectl/agent-ramdisk/disk"
	"github.com/pxectl/pxectl/agent-ramdisk/hardware"
	"github.com/pxectl/pxectl/agent-ramdisk/modules"
	"github.com/pxectl/pxectl/agent-ramdisk/netup"
	"github.com/pxectl/pxectl/inventory"
)

// version is set in the build of the ramdisk's base.
var version = "dev"

func main() {
	if os.Getpid() != 1 {
		println("pxagent: this is the first process of pxectl's ramdisk and runs nowhere else")
		os.Exit(2)
	}
	// The agent shares a small machine with the ramdisk's files. Its buffers for images lie outside of the
	// heap.
	debug.SetMemoryLimit(48 << 20)
	console := new(agent.Console)
	if err := boot.Mount(); err != nil {
		println("pxagent:", err.Error())
	}
	openTerminals(console, boot.Collect())
	log := console.Logger()
	err := run(context.Background(), console, log)
	wait := time.Minute
	if errors.Is(err, agent.ErrNonce) {
		log.Error("this boot is not known to the appliance (any more): its nonce is wrong or dead. "+
			"Rebooting in a minute for a new one", "err", err)
	} else {
		log.Error("the agent ended; rebooting in a minute", "err", err)
	}
	time.Sleep(wait)
	for {
		log.Error("reboot", "err", boot.Restart(inventory.DoReboot))
		time.Sleep(wait) // process 1 must not return
	}
}

// openTerminals shows the log on every console, with a shell for whoever presses Enter.
func openTerminals(console *agent.Console, children *boot.Children) {
	for _, device := range boot.Terminals() {
		term := console.Add(device, boot.Screen(device))
		go func() {
			_ = children.Shells(device, func(busy bool) { console.Mute(term, busy) })
		}()
	}
}

func run(ctx context.Context, console *agent.Console, log *slog.Logger) error {
	log.Info("pxectl agent", "version", version, "uptime", boot.Uptime().Round(10*time.Millisecond))
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	params, err := agent.ParseCommandLine(string(line))
	if err != nil {
		return err
	}
	loader, err := modules.Open("/")
	if err != nil {
		return err
	}
	if k := loader.Index.Kernel; k != "" && k != kernel() {
		log.Error("the ramdisk's modules are for another kernel; build it again", "modules", k,
			"kernel", kernel())
	}

	up, err := network(ctx, params, loader, log)
	if err != nil {
		return err
	}
	go func() { _ = up.Keep(ctx) }()
	client, err := agent.NewClient(params)
	if err != nil {
		return err
	}
	settled := make(chan struct{})
	machine := hardware.Machine{
		Root: "/", BootMAC: up.MAC, Version: version, Content: content, BMC: hardware.AskBMC,
	}
	a := &agent.Agent{
		Client: client, Console: console, Log: log,
		Registration: inventory.Registration{
			MAC: up.MAC, UUID: machine.UUID(), BootID: boot.ID(), Version: version,
		},
		Uptime: boot.Uptime, SetClock: boot.SetClock,
		// Not earlier: on one slow CPU the other drivers would delay the first call by seconds.
		Registered: func() {
			go func() {
				defer close(settled)
				drivers(loader, log)
			}()
		},
		Settle: func(context.Context) { <-settled },
		Report: machine.Report, Disks: machine.Disks, Dev: "/dev", EFI: "/sys/firmware/efi",
		DiskWait: 30 * time.Second,
		MountESP: func(disk string, number int) (string, func() error, error) {
			if err := loader.Load("vfat", "nls_cp437", "nls_ascii"); err != nil {
				return "", nil, err
			}
			return boot.MountESP(disk, number)
		},
		Restart: boot.Restart,
	}
	return a.Run(ctx)
}

// network brings up the boot card, and loads only the drivers that this needs.
func network(
	ctx context.Context, params agent.Params, loader *modules.Loader, log *slog.Logger,
) (*netup.Up, error) {
	done := agent.Phase(log, "network")
	up, err := netup.Start(ctx, netup.Options{
		BootMAC: params.BootMAC, Log: log,
		Drivers: func() error {
			_, err := loader.Coldplug(true)
			return err
		},
	})
	done(err)
	return up, err
}

// drivers loads all other drivers while the agent registers, and waits until no more disks appear.
func drivers(loader *modules.Loader, log *slog.Logger) {
	done := agent.Phase(log, "drivers")
	err := loader.ByName()
	_, e := loader.Coldplug(false)
	boot.MountEFI()
	waitDisks()
	done(errors.Join(err, e))
}

// waitDisks waits until the list of disks has not changed for a moment, and longer while it is empty. Nearly
// all disks exist when their drivers are loaded.
func waitDisks() {
	const quiet, most = 300 * time.Millisecond, 5 * time.Second
	var last []string
	changed := time.Now()
	for start := changed; time.Since(start) < most; time.Sleep(50 * time.Millisecond) {
		names, _ := filepath.Glob("/sys/block/*/device") // loop and ram devices have none
		if !slices.Equal(names, last) {
			last, changed = names, time.Now()
		}
		if len(names) > 0 && time.Since(changed) >= quiet {
			return
		}
	}
}

func content(name string) ([]string, error) {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, sector, err := blockdev.Geometry(f)
	if err != nil {
		return nil, err
	}
	return disk.Probe(f, size, sector), nil
}

func kernel() string {
	data, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return string(data[:max(0, len(data)-1)])
}
