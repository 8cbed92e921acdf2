package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy/nocloud"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

// deployFlags are the options of a deployment.
type deployFlags struct {
	all                     bool
	labels                  string
	image, hostname         string
	keyFiles                []string
	userData, network, disk string
	mode, verify            string
	redeploy, overwrite     bool
	asIs                    bool
	plan                    bool
	waitFlags
}

func (c *cli) deployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use: "deploy MACHINE... | --all", Short: "Write an image to machines and boot them from it",
		Long: "Write an image to machines and boot them from it. " +
			"This overwrites their disks; --plan shows what is on them.\n\n" +
			"--all takes every machine that is available and not in maintenance, and names the others. " +
			"A deployed machine\nmust be named, with --redeploy. " +
			"With --wait the command ends when every machine has proved that its new system\n" +
			"runs, or has failed. Without --wait it returns at once, and the deployments go on.",
		Example: "  pxectl deploy web1 --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub --wait\n" +
			"  pxectl deploy 'web*' --image debian-12 --user-data web.yaml --wait --timeout 20m\n" +
			"  pxectl deploy db1 --image debian-12 --disk serial=S4EVNF0M\n" +
			"  pxectl deploy --all --image debian-12 --disk 'size>=400GB,rotational=false' --plan",
		ValidArgsFunction: c.completeMachines,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := f.request()
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			machines, err := c.deployable(cmd.Context(), client, args, f)
			if err != nil {
				return err
			}
			if request.Image == "" {
				if request.Image, err = onlyImage(cmd.Context(), client); err != nil {
					return err
				}
			}
			if f.plan {
				return c.plan(cmd.Context(), client, machines, request)
			}
			return c.deploy(cmd.Context(), client, machines, request, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "every machine that is available")
	selectorFlag(cmd, &f.labels)
	fl.StringVar(&f.image, "image", "", "name or id of the image (default: the only one there is)")
	fl.BoolVar(&f.redeploy, "redeploy", false, "overwrite the system of a machine that is deployed")
	fl.StringVar(&f.hostname, "hostname", "",
		"host name of the new system, for a single machine (default: the machine's name)")
	fl.StringArrayVar(&f.keyFiles, "ssh-key", nil,
		"`file` of public keys for the image's default user; can be repeated")
	fl.StringVar(&f.userData, "user-data", "", "`file` with cloud-init user-data, plain or in gzip")
	fl.BoolVar(&f.asIs, "as-is", false,
		"do not check user-data, network and keys: another program than cloud-init reads them")
	fl.StringVar(&f.network, "network", "", "`file` with cloud-init network configuration")
	fl.StringVar(&f.disk, "disk", "", "`disk` to write to: "+diskHelp)
	fl.StringVar(&f.mode, "mode", "",
		"full writes every chunk; delta writes those that differ from the disk; auto chooses (default auto)")
	fl.StringVar(&f.verify, "verify", "",
		"readback reads every chunk back from the medium; hash does not (default readback)")
	fl.BoolVar(&f.overwrite, "overwrite", false, "overwrite data that pxectl did not put on the disk")
	fl.BoolVar(&f.plan, "plan", false, "show what a deployment would do, and change nothing")
	f.add(cmd, "for the proof that the new systems run", "; the deployments go on")
	return cmd
}

// request reads the files that the flags name.
func (f deployFlags) request() (inventory.DeployRequest, error) {
	r := inventory.DeployRequest{
		Image: f.image, Hostname: f.hostname, Redeploy: f.redeploy, Overwrite: f.overwrite, Mode: f.mode,
		Verify: f.verify,
	}
	if f.plan && f.wait {
		return r, usagef("either --plan or --wait")
	}
	for _, choice := range []struct {
		flag, value string
		have        []string
	}{
		{"--mode", f.mode, []string{inventory.ModeAuto, inventory.ModeFull, inventory.ModeDelta}},
		{"--verify", f.verify, []string{inventory.VerifyReadBack, inventory.VerifyHash}},
	} {
		if choice.value != "" && !slices.Contains(choice.have, choice.value) {
			return r, usagef("%s %q: have %s", choice.flag, choice.value, strings.Join(choice.have, ", "))
		}
	}
	if f.hostname != "" {
		if err := inventory.CheckHostname(f.hostname); err != nil {
			return r, usage(err)
		}
	}
	if f.disk != "" {
		hint, err := inventory.ParseDiskHint(f.disk)
		if err != nil {
			return r, usage(err)
		}
		r.Disk = &hint
	}
	for _, file := range f.keyFiles {
		data, err := readSmall(file, nocloud.MaxKeys)
		if err != nil {
			return r, fmt.Errorf("--ssh-key: %w", err)
		}
		keys, err := publicKeys(string(data))
		if err != nil {
			return r, fmt.Errorf("--ssh-key %s: %w", file, err)
		}
		r.SSHKeys = append(r.SSHKeys, keys...)
	}
	for _, part := range []struct {
		flag, file string
		most       int64
		to         func([]byte)
	}{
		{"--user-data", f.userData, nocloud.MaxUserData, func(b []byte) { r.UserData = b }},
		{"--network", f.network, nocloud.MaxNetwork, func(b []byte) { r.Network = string(b) }},
	} {
		if part.file == "" {
			continue
		}
		data, err := readSmall(part.file, part.most)
		if err != nil {
			return r, fmt.Errorf("%s: %w", part.flag, err)
		}
		part.to(data)
	}
	r.AsIs = f.asIs
	return r, nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, hinted(err, "the flag names a file of this host: is the path right?")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, err
}

// publicKeys lists the keys of an authorized_keys or .pub file.
func publicKeys(text string) ([]string, error) {
	if strings.Contains(text, "PRIVATE KEY-----") {
		return nil, errors.New("that is a private key; give the .pub file")
	}
	var keys []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}

// deployable finds the machines that the arguments and the selector mean, and checks that they can be
// deployed.
func (c *cli) deployable(
	ctx context.Context, client *api.Client, args []string, f deployFlags,
) ([]inventory.Machine, error) {
	if !f.all {
		machines, err := c.pickSome(ctx, client, args, f.labels)
		if err == nil && len(machines) > 1 && f.hostname != "" {
			err = usagef("--hostname is for one machine, these are %d: %s", len(machines), nameList(machines))
		}
		return machines, err
	}
	if len(args) > 0 {
		return nil, usagef("either --all or machines")
	}
	if f.hostname != "" {
		return nil, usagef("--hostname is for one machine, not for --all")
	}
	machines, err := c.pick(ctx, client, nil, f.labels)
	if err != nil {
		return nil, err
	}
	var ready, left []inventory.Machine
	for _, m := range machines {
		if m.State == inventory.Available && m.Maintenance == nil {
			ready = append(ready, m)
		} else {
			left = append(left, m)
		}
	}
	if len(ready) > 0 {
		for _, line := range leftOut(left) {
			fmt.Fprintln(c.err, clean(line))
		}
	}
	if len(ready) == 0 {
		return nil, &inventory.Problem{
			Code: inventory.CodeNotFound, Detail: "no machine is available (" + statesOf(machines) + ")",
			Hint: "`pxectl machine list` shows their states; " +
				"a machine that is deployed or failed has to be named",
		}
	}
	return ready, nil
}

// leftOut says which machines --all leaves out, and why, a line for each reason.
func leftOut(machines []inventory.Machine) (lines []string) {
	var maintained []inventory.Machine
	of := map[inventory.State][]inventory.Machine{}
	for _, m := range machines {
		if m.Maintenance != nil {
			maintained = append(maintained, m)
		} else {
			of[m.State] = append(of[m.State], m)
		}
	}
	say := func(why string, those []inventory.Machine) {
		if len(those) > 0 {
			lines = append(lines, fmt.Sprintf("left out, %s: %s", why, nameList(those)))
		}
	}
	for _, s := range inventory.States {
		why := string(s)
		switch s {
		case inventory.Discovered:
			why += " (`pxectl machine approve --wait` lets them in)"
		case inventory.Enrolled:
			why += " (their agents have not called yet)"
		case inventory.Inspecting, inventory.Cleaning:
			why += " (not available yet)"
		case inventory.Deployed:
			why += " (name them, with --redeploy)"
		case inventory.Failed:
			why += " (name them; `pxectl why` says what failed)"
		}
		say(why, of[s])
	}
	say("in maintenance", maintained)
	return lines
}

// statesOf counts machines by state: "2 deployed, 1 failed".
func statesOf(machines []inventory.Machine) string {
	if len(machines) == 0 {
		return "there are none"
	}
	var parts []string
	for _, s := range inventory.States {
		n := 0
		for _, m := range machines {
			if m.State == s {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

func onlyImage(ctx context.Context, client *api.Client) (string, error) {
	images, err := client.Images(ctx)
	if err != nil {
		return "", err
	}
	images = slices.DeleteFunc(images, func(i store.Info) bool { return !i.Current })
	switch len(images) {
	case 1:
		return images[0].Name, nil
	case 0:
		return "", &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: "there is no image yet",
			Hint:   "`pxectl image import FILE|URL` adds one",
		}
	}
	return "", usagef("which image? give --image (have: %s)", strings.Join(imageNames(images), ", "))
}

// deploy starts a deployment of each machine and, with --wait, shows them until they end.
func (c *cli) deploy(
	ctx context.Context, client *api.Client, machines []inventory.Machine, r inventory.DeployRequest,
	f deployFlags,
) error {
	c.noteUnaccepted(machines)
	var started []api.Deployment
	var errs []error
	for _, m := range machines { // in order, and so with ids in order
		r := r
		if r.Hostname == "" {
			r.Hostname = m.Name
		}
		d, err := client.Deploy(ctx, string(m.ID), r)
		if err != nil {
			errs = append(errs, about(m.Name, err))
			continue
		}
		started = append(started, d)
	}
	return c.watchToEnd(ctx, client, started, joinErrors(errs), f.waitFlags)
}

// noteUnaccepted names the machines whose BMC waits to be accepted: without a BMC, somebody has to reboot
// them.
func (c *cli) noteUnaccepted(machines []inventory.Machine) {
	for _, m := range machines {
		if m.BMC.Proposed != nil && m.State != inventory.Discovered {
			fmt.Fprintln(c.err,
				clean(fmt.Sprintf("%s: %s: `%s`", m.Name, diagnose.UnacceptedBMC(m),
					diagnose.AcceptCommand(m))))
		}
	}
}
