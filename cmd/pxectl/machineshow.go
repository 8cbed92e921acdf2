package main

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) machineShow() *cobra.Command {
	var labels string
	cmd := &cobra.Command{
		Use:               "show MACHINE...",
		Short:             "Show all that is known of machines",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, machines, err := c.picked(cmd.Context(), args, labels)
			if err != nil {
				return err
			}
			// The machines of a list have no reports.
			machines, err = gather(machines, func(m inventory.Machine) (inventory.Machine, error) {
				return client.Machine(cmd.Context(), string(m.ID))
			})
			if err != nil {
				return err
			}
			if c.output != "table" {
				var v any = machines
				if len(machines) == 1 {
					v = machines[0]
				}
				return c.print(v, machineNames(machines), nil)
			}
			for i, m := range machines {
				if i > 0 {
					fmt.Fprintln(c.out)
				}
				var d *api.Deployment
				if m.Deployment != "" {
					if found, err := client.Deployment(cmd.Context(), string(m.Deployment)); err == nil {
						d = &found
					}
				}
				if err := c.showMachine(m, d); err != nil {
					return err
				}
			}
			return nil
		},
	}
	selectorFlag(cmd, &labels)
	return cmd
}

func (c *cli) showMachine(m inventory.Machine, d *api.Deployment) error {
	t := newTable(c.out)
	t.field("name", m.Name)
	t.field("id", m.ID)
	t.field("state", stateWords(m)+" for "+c.age(m.ChangedAt))
	if f := m.Failure; f != nil && m.State == inventory.Failed {
		t.field("failed at", f.Step+": "+f.Reason)
		t.field("hint", f.Hint)
		if d != nil && m.Intact(&d.Deployment) {
			t.field("on its disk", "the system of before: "+string(d.ID)+" did not touch it")
		}
	}
	t.field("power", c.powerLine(m.Power))
	if m.Maintenance != nil {
		t.field("maintenance",
			fmt.Sprintf("%s (%s, by %s)", m.Maintenance.Reason, c.ago(m.Maintenance.Since),
				m.Maintenance.Actor))
	}
	t.field("MACs", joined(m.MACs))
	t.field("UUID", m.UUID)
	t.field("labels", labelWords(m.Labels))
	t.field("BMC", bmcLine(m.BMC))
	if p := m.BMC.Proposed; p != nil {
		t.field("BMC reported",
			fmt.Sprintf("%s, %s; not accepted: `%s`", p.Address, c.reported(*p), diagnose.AcceptCommand(m)))
	}
	t.field("BMC error", m.BMC.Error)
	if m.RootDisk != nil {
		t.field("deploy to", m.RootDisk)
	}
	if m.Disk != nil {
		t.field("last disk", m.Disk.Name+", "+m.Disk.Said())
	}
	if d != nil {
		t.field("deployment", fmt.Sprintf("%s: %s, %s", d.ID, imageOf(*d), c.outcomeLine(*d)))
	}
	t.field("agent", agentLine(c, m))
	if m.Report != nil {
		reportFields(t, m.Report)
		t.field("reported", c.ago(m.ReportedAt))
	}
	if err := t.w.Flush(); err != nil || m.Report == nil {
		return err
	}
	return c.showReport(m.Report)
}

func (c *cli) powerLine(p inventory.Power) string {
	s := "unknown"
	if p.Known {
		s = fmt.Sprintf("%s (read %s)", powerWord(p), c.ago(p.ObservedAt))
	}
	if p.Wanted != "" && p.Wanted != powerWord(p) {
		s += ", wanted " + p.Wanted
	}
	return s
}

func bmcLine(b inventory.BMC) string {
	s := b.Address
	if b.User != "" {
		s += " as " + b.User
	}
	if b.Discovered {
		s += " (found by the agent)"
	}
	return strings.TrimSpace(s)
}

func agentLine(c *cli, m inventory.Machine) string {
	if m.Boot == nil {
		return ""
	}
	return fmt.Sprintf("registered %s from %s", c.ago(m.Boot.RegisteredAt), m.Boot.IP)
}

func reportFields(t *table, r *inventory.Report) {
	t.field("system", strings.Join(words(r.System.Manufacturer, r.System.Product), " "))
	t.field("serial", r.System.Serial)
	t.field("firmware",
		strings.Join(words(strings.ToUpper(r.Firmware), r.System.BIOSVendor, r.System.BIOSVersion,
			r.System.BIOSDate), ", "))
	t.field("cpu", fmt.Sprintf("%s, %s, %s, %s", r.CPU.Model, count(r.CPU.Sockets, "socket"),
		count(r.CPU.Cores, "core"), count(r.CPU.Threads, "thread")))
	memory := binary(r.Memory.Bytes)
	if n := len(r.Memory.DIMMs); n > 0 {
		memory += " in " + count(n, "DIMM")
	}
	t.field("memory", memory)
	for _, p := range r.Problems {
		t.field("not read", p)
	}
}

func (c *cli) showReport(r *inventory.Report) error {
	if len(r.Disks) > 0 {
		t := newTable(c.out)
		fmt.Fprintln(c.out)
		t.row("DISK", "SIZE", "TYPE", "MODEL", "SERIAL", "PATH", "CONTENT")
		for _, d := range r.Disks {
			kind := d.Transport
			switch {
			case d.Removable:
				kind += ", removable"
			case d.Rotational:
				kind += ", rotating"
			}
			t.row(d.Name, humanize.Bytes(d.Bytes), kind, strings.Join(words(d.Vendor, d.Model), " "),
				d.Serial, d.ByPath, strings.Join(d.Content, ","))
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
	}
	if len(r.NICs) == 0 {
		return nil
	}
	t := newTable(c.out)
	fmt.Fprintln(c.out)
	t.row("NIC", "MAC", "LINK", "DRIVER", "PATH", "BOOT")
	for _, n := range r.NICs {
		link := "down"
		if n.Carrier {
			link = "up"
			if n.Mbps > 0 {
				link = humanize.SI(float64(n.Mbps)*1e6, "b/s")
			}
		}
		boot := ""
		if n.Boot {
			boot = "yes"
		}
		t.row(n.Name, n.MAC, link, n.Driver, n.Path, boot)
	}
	return t.w.Flush()
}

// words drops empty strings.
func words(all ...string) []string {
	var out []string
	for _, w := range all {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func joined[T ~string](all []T) string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}
