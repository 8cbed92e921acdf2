// Demo shows pxectl at work in the virtual rack: two bare machines power on, boot from the network, register
// themselves, are approved, get Debian 12, boot it and phone home. It runs real commands, and at the end it
// checks the result from outside. `make demo` builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/internal/sleep"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/lab"
	"github.com/pxectl/pxectl/lab/verify"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := demo{}
	flag.StringVar(&d.pxectl, "pxectl", "bin/pxectl", "the program")
	flag.StringVar(&d.ramdisk, "ramdisk", ".cache/ramdisk", "directory with ARCH/vmlinuz and ARCH/initrd")
	flag.StringVar(&d.image, "image", ".cache/images/debian-12.raw", "the OS image to deploy")
	flag.StringVar(&d.dir, "dir", "/var/tmp/pxectl-demo", "directory of the rack")
	flag.BoolVar(&d.keep, "keep", false, "leave the rack up")
	flag.Parse()
	if err := d.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

type demo struct {
	pxectl, ramdisk, image, dir string
	keep                        bool

	rack   *lab.Rack
	client *api.Client
	began  time.Time
}

// machines are those of the rack: one with SeaBIOS and its iPXE ROM, one with OVMF's own PXE client.
var machines = []struct{ name, mac, firmware string }{
	{"m1", "52:54:00:77:00:01", "SeaBIOS and its iPXE ROM"},
	{"m2", "52:54:00:77:00:02", "OVMF and its own PXE client"},
}

func (d *demo) run(ctx context.Context) (err error) {
	d.began = time.Now()
	for _, p := range []*string{&d.pxectl, &d.ramdisk, &d.image} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
		if _, err := os.Stat(*p); err != nil {
			return fmt.Errorf("%w; `make demo` builds it", err)
		}
	}
	if err := d.up(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.down(err != nil)) }()

	d.chapter("The image goes into the catalogue")
	if err := d.show(ctx, "image", "import", d.image, "--name", "debian-12"); err != nil {
		return err
	}
	d.chapter("Both machines are switched on; nothing is on their disks, nobody announced them")
	for _, m := range machines {
		if err := d.show(ctx, "lab", "power", "on", m.name, "--dir", d.dir); err != nil {
			return err
		}
	}
	if err := d.registered(ctx); err != nil {
		return err
	}
	if err := d.show(ctx, "machine", "list"); err != nil {
		return err
	}
	d.chapter("They are named and approved")
	approve := []string{"machine", "approve", "m1", "m2", "-o", "name"}
	for _, m := range machines {
		if err := d.show(ctx, "machine", "edit", m.mac, "--name", m.name, "-o", "name"); err != nil {
			return err
		}
		now, err := d.client.Machine(ctx, m.mac)
		if err != nil {
			return err
		}
		if now.BMC.Proposed != nil {
			approve = append(approve, "--accept-bmc", m.name+"="+now.BMC.Proposed.Address)
		}
	}
	if err := d.show(ctx, approve...); err != nil {
		return err
	}
	if err := d.until(ctx, 30*time.Second, "both machines are available",
		func() bool { return d.inState(ctx, inventory.Available) }); err != nil {
		return err
	}
	d.chapter("They are deployed")
	if err := d.show(ctx, "deploy", "--all", "--image", "debian-12", "--wait", "--timeout",
		"10m"); err != nil {
		return err
	}
	if err := d.show(ctx, "machine", "list"); err != nil {
		return err
	}
	return d.prove(ctx)
}

func (d *demo) chapter(title string) {
	fmt.Printf("\n\x1b[1m== %s\x1b[0m  (%.0f s)\n", title, time.Since(d.began).Seconds())
}

// show prints a command, runs it as an operator would, and prints its output.
func (d *demo) show(ctx context.Context, args ...string) error {
	fmt.Printf("$ pxectl %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.pxectl, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PXECTL_SOCKET="+d.rack.Socket())
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pxectl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// up starts the rack, with the ramdisk in place.
func (d *demo) up(ctx context.Context) error {
	d.chapter("A virtual rack: two machines, a DHCP server that is not ours, and pxectl serve beside it")
	if old, err := lab.Attach(d.dir); err == nil {
		fmt.Println("an earlier demo's rack is still up; it is taken down")
		if err := old.Down(ctx); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	if err := d.makeData(); err != nil {
		return err
	}
	config, err := lab.ParseMachines("m1:bios,m2:uefi")
	if err != nil {
		return err
	}
	d.rack, err = lab.Up(ctx, lab.Config{
		Dir: d.dir, Machines: config, Binary: d.pxectl, Freeze: true, Attached: !d.keep,
	})
	if err != nil {
		return err
	}
	if d.client, err = api.NewClient(d.rack.Socket()); err != nil {
		return err
	}
	return d.show(ctx, "lab", "status", "--dir", d.dir)
}

// makeData makes the appliance's data_dir before the appliance does, as closed as it makes it.
func (d *demo) makeData() error {
	data := filepath.Join(d.dir, "data")
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(data, "ramdisk"), os.DirFS(d.ramdisk))
}

func (d *demo) down(failed bool) error {
	if d.keep {
		fmt.Printf(`
The rack is up in %s. Look around:
  export PXECTL_SOCKET=%s
  %[3]s machine show m1          %[3]s events --machine m1
  %[3]s console m1               %[3]s why m1
  %[3]s lab shell --dir %[1]s    (a shell inside the rack's network)
  %[3]s lab down --dir %[1]s
`, d.dir, d.rack.Socket(), d.pxectl)
		return nil
	}
	if failed {
		fmt.Fprintf(os.Stderr, "\nlogs and consoles are in %s\n", d.dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.rack.Down(ctx); err != nil {
		return err
	}
	if !failed {
		fmt.Println("\nThe rack is taken down. `make demo KEEP=1` leaves it up, for `pxectl lab shell` and `pxectl console m1`.")
	}
	return nil
}

// registered follows the machines' timelines until both have reported.
func (d *demo) registered(ctx context.Context) error {
	on := time.Now()
	seen := map[string]bool{}
	return d.until(ctx, 3*time.Minute, "both machines have registered and reported", func() bool {
		all := true
		for _, m := range machines {
			now, err := d.client.Machine(ctx, m.mac)
			if err != nil {
				all = false
				continue
			}
			if now.Boot != nil && !seen[m.mac+"call"] {
				seen[m.mac+"call"] = true
				fmt.Printf("  %5.1f s  %s (%s) registered itself\n", now.Boot.RegisteredAt.Sub(on).Seconds(),
					m.mac, m.firmware)
			}
			if now.Report == nil {
				all = false
			} else if !seen[m.mac+"report"] {
				seen[m.mac+"report"] = true
				bmc := "no BMC was found"
				if now.BMC.Proposed != nil {
					bmc = "its agent reports the BMC at " + now.BMC.Proposed.Address
				}
				fmt.Printf("  %5.1f s  %s is inspected; %s\n", now.ReportedAt.Sub(on).Seconds(), m.mac, bmc)
			}
		}
		return all
	})
}

func (d *demo) inState(ctx context.Context, want inventory.State) bool {
	for _, m := range machines {
		if now, err := d.client.Machine(ctx, m.mac); err != nil || now.State != want {
			return false
		}
	}
	return true
}

// until polls until something is true.
func (d *demo) until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		if sleep.For(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("waited %s in vain until %s", limit, what)
		}
	}
	return nil
}

// prove checks the result from outside: the consoles, the disks' files, the wire.
func (d *demo) prove(ctx context.Context) error {
	d.chapter("Proof, from outside the machines")
	for _, m := range machines {
		prompt := m.name + " login:"
		err := d.until(ctx, time.Minute, "the console of "+m.name+" shows "+prompt, func() bool {
			console, err := os.ReadFile(d.rack.Console(m.name))
			return err == nil && strings.Contains(string(console), prompt)
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s  console   shows %q: the deployed system, under the name given at deploy time\n",
			m.name, prompt)
		dep, err := d.client.Deployment(ctx, m.name)
		if err != nil {
			return err
		}
		if dep.Finished == nil || dep.Written == nil {
			return fmt.Errorf("deployment %s has no proof of its disk", dep.ID)
		}
		sum, want, err := verify.Disk(d.rack.Frozen(m.name), filepath.Join(d.dir, "data", "images"),
			dep.ImageID, dep.Finished.Ranges)
		if err != nil {
			return err
		}
		if sum != want {
			return fmt.Errorf("%s: the disk has sha256 %s, the image %s", m.name, sum, want)
		}
		fmt.Printf("%s  disk      sha256 %s read back before its first boot is the image's, but for: %s\n",
			m.name, sum, strings.Join(verify.Names(dep.Finished.Ranges), ", "))
		fmt.Printf("%s  network   %.0f MB sent for %.0f MB of image; %d chunks verified, %d read back by the agent\n",
			m.name, float64(dep.Written.Sent)/1e6, float64(dep.Written.Bytes)/1e6, dep.Written.Chunks,
			dep.Written.ReadBack)
		for _, s := range dep.History {
			fmt.Printf("%s  %-13s %6.1f s  %s\n", m.name, s.Step, s.EndedAt.Sub(s.BeganAt).Seconds(), s.Proof)
		}
	}
	wire, err := verify.DHCP(d.rack.Capture(), netip.MustParseAddr("10.77.0.1"))
	if err != nil {
		return err
	}
	fmt.Printf("wire          the site's DHCP server gave %d addresses and no boot file; pxectl gave %d boot files and no address\n",
		wire.SiteAddresses, wire.OurBootFiles)
	fmt.Printf("\nBoth machines are deployed and proved it, %.0f s after the beginning.\n",
		time.Since(d.began).Seconds())
	return nil
}
