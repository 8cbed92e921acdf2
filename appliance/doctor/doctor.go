package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/appliance/config"
	"github.com/pxectl/pxectl/appliance/interfaces"
	"github.com/pxectl/pxectl/appliance/rogue"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
)

// A House is what is examined: a configuration, and the appliance that runs with it, if one does.
type House struct {
	Config config.Config
	Rogues *rogue.Servers // nil: other DHCP servers are not looked for
	// Ask is dhcpd.Ask; nil: nobody is asked.
	Ask func(ctx context.Context, iface string) ([]dhcpd.Overheard, error)

	// Parts of the appliance that runs; nil when none does.
	Interfaces *interfaces.Set
	Engine     *deploy.Engine
	Images     *store.Store
}

// File checks what can be checked of a configuration file while no appliance runs.
func File(ctx context.Context, path string) []api.Check {
	cfg, err := config.Load(path)
	if p, ok := errors.AsType[*inventory.Problem](err); ok { // there is no file that could be corrected
		return []api.Check{fail("configuration", p.Detail, p.Hint+"; nothing else was checked")}
	}
	if err != nil {
		// One line per mistake, the first of which counts them.
		lines := strings.Split(err.Error(), "\n  ")
		if len(lines) > 1 {
			lines = lines[1:]
		}
		var checks []api.Check
		for _, l := range lines {
			checks = append(checks,
				fail("configuration", l, "correct "+path+"; what depends on it was not checked"))
		}
		return checks
	}
	return append([]api.Check{pass("configuration", "%s is in order", path)}, House{
		Config: cfg, Ask: dhcpd.Ask,
		Rogues: &rogue.Servers{
			Log: slog.New(slog.DiscardHandler), Note: func(inventory.Event) {},
			Own: func() (own []netip.Prefix) {
				for _, in := range cfg.Provisioning.Interfaces {
					own = append(own, netip.PrefixFrom(in.Address, in.Address.BitLen()))
				}
				return own
			},
		},
	}.Examine(ctx)...)
}

func pass(subject, format string, args ...any) api.Check {
	return api.Check{Subject: subject, Status: api.Pass, Text: fmt.Sprintf(format, args...)}
}

func warn(subject, text, next string) api.Check {
	return api.Check{Subject: subject, Status: api.Warn, Text: text, Next: next}
}

func fail(subject, text, next string) api.Check {
	return api.Check{Subject: subject, Status: api.Fail, Text: text, Next: next}
}

func (d House) running() bool { return d.Engine != nil }

// Examine makes all checks, in the order in which a boot meets them.
func (d House) Examine(ctx context.Context) []api.Check {
	var checks []api.Check
	for _, in := range d.interfaces() {
		checks = append(checks, d.network(in))
	}
	checks = append(checks, d.ports()...)
	if d.Rogues != nil {
		checks = append(checks, d.otherServers(ctx)...)
	}
	checks = append(checks, d.ramdisk())
	checks = append(checks, d.images())
	if d.running() {
		checks = append(checks, d.bmcs(ctx)...)
		checks = append(checks, d.timeline())
	}
	return append(checks, clock(), space(d.Config.DataDir), d.permissions())
}

// otherServers names the DHCP servers that were overheard, and those that answer now.
func (d House) otherServers(ctx context.Context) []api.Check {
	const subject = "other DHCP servers"
	asked := d.askAll(ctx)
	all, absent := d.Rogues.List()
	if absent != "" {
		return []api.Check{
			warn(subject, "cannot be heard: "+absent,
				"run `pxectl serve` with CAP_NET_RAW (with systemd: "+
					"AmbientCapabilities=CAP_NET_RAW), and `pxectl doctor --config` as root"),
		}
	}
	leases := slices.ContainsFunc(all, func(s rogue.Server) bool { return s.Leases })
	var checks []api.Check
	switch {
	case asked != nil:
		checks = append(checks, warn(subject, asked.Error(), "is the interface up?"))
	case d.Config.DHCP.Mode == "proxy" && d.Ask != nil && !leases:
		checks = append(checks,
			warn(subject, "none hands out addresses, and dhcp.mode proxy needs one",
				"let the DHCP server of this network run, or set dhcp.mode to server; "+
					"one on this same host is not heard"))
	case len(all) == 0:
		checks = append(checks, pass(subject, "none was heard"))
	}
	if len(all) >= rogue.MaxServers {
		checks = append(checks, warn(subject,
			fmt.Sprintf("%d were heard within a day, and no more are remembered: "+
				"does somebody forge answers? One that is not below may be there",
				len(all)),
			"the log names each that tells machines what to boot; "+
				"`tcpdump -eni INTERFACE udp dst port 68` shows from which MACs the answers come"))
	}
	for _, s := range all {
		switch {
		case s.Impostor != "":
			checks = append(checks, fail(subject, s.String(), diagnose.FindImpostor(s.Impostor)))
		case s.Boots != "" && d.Config.DHCP.Mode != "off" && s.Pxectl:
			checks = append(checks,
				fail(subject, s.String(),
					"one pxectl per provisioning network: stop one, or set its dhcp.mode to off"))
		case s.Boots != "" && d.Config.DHCP.Mode != "off":
			checks = append(checks,
				fail(subject, s.String()+", and machines take whichever answer they like",
					"take the boot options (66, 67, next-server) out of "+s.Addr.String()))
		case s.Leases && d.Config.DHCP.Mode == "server":
			checks = append(checks,
				warn(subject, fmt.Sprintf("%v on %s hands out addresses, and so do we (dhcp.mode: server)",
					s.Addr, s.Interface), "stop one of the two, or set dhcp.mode to proxy"))
		default:
			checks = append(checks,
				pass(subject, "%v on %s, last heard %s ago, which tells machines to boot %s", s.Addr,
					s.Interface, time.Since(s.Last).Round(time.Second), orNothing(s.Boots)))
		}
	}
	return checks
}

// askAll asks on all provisioning interfaces at once who offers something.
func (d House) askAll(ctx context.Context) error {
	if d.Ask == nil {
		return nil
	}
	errs := make([]error, len(d.Config.Provisioning.Interfaces))
	var all sync.WaitGroup
	for i, in := range d.Config.Provisioning.Interfaces {
		all.Go(func() {
			defer bug.Return(nil, "ask for other DHCP servers", &errs[i])
			var offers []dhcpd.Overheard
			offers, errs[i] = d.Ask(ctx, in.Name)
			for _, o := range offers {
				d.Rogues.Heard(o)
			}
			if errors.Is(errs[i], fs.ErrPermission) {
				d.Rogues.Absent(errs[i])
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q", s)
}

// ramdisk looks for what the boot script of an unknown machine needs.
func (d House) ramdisk() api.Check {
	const subject = "ramdisk"
	var whole, broken []string
	for _, arch := range []string{"amd64", "arm64"} {
		var sizes []int64
		for _, name := range []string{"vmlinuz", "initrd"} {
			st, err := os.Stat(filepath.Join(d.Config.RamdiskDir(), arch, name))
			if err == nil && st.Mode().IsRegular() && st.Size() > 0 {
				sizes = append(sizes, st.Size())
			}
		}
		switch len(sizes) {
		case 2:
			whole = append(whole, fmt.Sprintf("%s (%d MiB)", arch, (sizes[0]+sizes[1])>>20))
		case 1:
			broken = append(broken, arch)
		}
	}
	switch {
	case len(broken) > 0:
		return fail(subject, "kernel or ramdisk is missing for "+strings.Join(broken, ", "),
			"`pxectl ramdisk build --arch "+broken[0]+" --out "+d.Config.RamdiskDir()+
				"`, with a kernel and its modules (`pxectl ramdisk build --help`)")
	case len(whole) == 0:
		return fail(subject, "none in "+d.Config.RamdiskDir()+": machines wait in their boot program",
			"`pxectl ramdisk build --out "+d.Config.RamdiskDir()+
				"`, with a kernel and its modules (`pxectl ramdisk build --help`)")
	}
	return pass(subject, "%s", strings.Join(whole, ", "))
}

func (d House) images() api.Check {
	const subject, next = "images", "`pxectl image import FILE` adds one"
	if d.Images == nil {
		entries, err := os.ReadDir(filepath.Join(d.Config.DataDir, "images"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return warn(subject, err.Error(), "run this as the user that runs pxectl")
		}
		n := len(slices.DeleteFunc(entries, func(e os.DirEntry) bool {
			return !e.IsDir() || len(e.Name()) != 64
		})) // ids are SHA-256
		if n == 0 {
			return warn(subject, "there is none to deploy", next)
		}
		return pass(subject, "%d", n)
	}
	all := d.Images.List()
	if len(all) == 0 {
		return warn(subject, "there is none to deploy", next)
	}
	var stored int64
	for _, i := range all {
		stored += i.DataSize
	}
	return pass(subject, "%d, %d MiB stored", len(all), stored>>20)
}

// Limits of asking BMCs, so that a rack whose BMCs are all unplugged makes nobody wait for longer than
// bmcsAll.
const (
	bmcsAtOnce = 16
	bmcAnswers = 10 * time.Second
	bmcsAll    = 40 * time.Second
)

// bmcs asks every BMC that we may ask for the power of its machine.
func (d House) bmcs(ctx context.Context) []api.Check {
	const subject = "BMCs"
	all := slices.DeleteFunc(d.Engine.Machines(), func(m inventory.Machine) bool {
		return m.BMC.Address == "" || m.State == inventory.Discovered || m.Maintenance != nil
	})
	checks := unacceptedBMCs(d.Engine.Machines())
	if len(all) == 0 {
		return append(checks, pass(subject, "no approved machine has one"))
	}
	ctx, cancel := context.WithTimeout(ctx, bmcsAll)
	defer cancel()
	errs := make([]error, len(all))
	turn := make(chan struct{}, bmcsAtOnce)
	var asked sync.WaitGroup
	for i, m := range all {
		asked.Go(func() {
			defer bug.Return(nil, "ask a BMC", &errs[i])
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-ctx.Done():
				errs[i] = errors.New("not asked: the others took too long")
				return
			}
			ctx, cancel := context.WithTimeout(ctx, bmcAnswers)
			defer cancel()
			_, errs[i] = d.Engine.PowerStatus(ctx, string(m.ID))
		})
	}
	asked.Wait()
	good := 0
	for i, m := range all {
		if errs[i] == nil {
			good++
			continue
		}
		p := inventory.AsProblem(errs[i])
		text, next := p.Detail, p.Hint
		if errors.Is(errs[i], context.DeadlineExceeded) {
			text = "no answer within " + bmcAnswers.String()
		}
		if next == "" {
			next = "ping " + m.BMC.Address + "; `pxectl power status " + m.Name + "` asks again"
		}
		checks = append(checks, fail("BMC of "+m.Name, text, next))
	}
	if good > 0 {
		checks = append([]api.Check{pass(subject, "%d of %d answer", good, len(all))}, checks...)
	}
	return checks
}

// unacceptedBMCs warns of reported BMCs of approved machines. A stranger's BMC is accepted when it is
// approved.
func unacceptedBMCs(all []inventory.Machine) (checks []api.Check) {
	const shown = 8
	var names []string
	for _, m := range all {
		if m.BMC.Proposed != nil && m.State != inventory.Discovered {
			names = append(names, m.Name+" at "+m.BMC.Proposed.Address)
		}
	}
	if len(names) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d reported by agents and not accepted: ", len(names)) +
		strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		text += ", …"
	}
	return []api.Check{
		warn("reported BMCs", text,
			"`pxectl machine list` shows them with ?; those that are right: "+
				"`pxectl machine edit NAME --accept-bmc IP`"),
	}
}

func (d House) timeline() api.Check {
	const subject = "timeline"
	if n := d.Engine.Dropped(); n > 0 {
		return warn(subject,
			fmt.Sprintf("%d events were dropped since the start, since they came faster than they could be "+
				"written",
				n), "is the disk of "+d.Config.DataDir+" full or slow? the log says when")
	}
	return pass(subject, "nothing was dropped since the start")
}

// interfaces returns the provisioning interfaces and where we serve on them.
func (d House) interfaces() (all []interfaces.State) {
	if d.Interfaces != nil {
		return d.Interfaces.All()
	}
	for _, in := range d.Config.Provisioning.Interfaces {
		all = append(all, interfaces.State{Interface: in})
	}
	return all
}

// network checks a provisioning interface as it is now.
func (d House) network(in interfaces.State) api.Check {
	subject := "interface " + in.Name
	nic, err := net.InterfaceByName(in.Name)
	if err != nil {
		return fail(subject, "is not there", "bring it back, or correct provisioning.interfaces")
	}
	if _, err := config.AddressOf(*nic, in.Address); err != nil {
		next := fmt.Sprintf("`ip addr add %v/24 dev %s`", in.Address, in.Name)
		if in.Fixed {
			next += ", or correct provisioning.interfaces and restart"
		} else {
			next += ", or give it another one, which is taken up without a restart"
		}
		return fail(subject, fmt.Sprintf("no longer has the address %v", in.Address), next)
	}
	switch {
	case nic.Flags&net.FlagUp == 0:
		return fail(subject, "is down", "`ip link set "+in.Name+" up`")
	case nic.Flags&net.FlagRunning == 0:
		return fail(subject, "has no link", "is its cable plugged, and the switch port on?")
	case nic.MTU < 1500:
		return warn(subject, fmt.Sprintf("has %v and an MTU of %d", in.Address, nic.MTU),
			"machines send frames of 1500 bytes: `ip link set "+in.Name+" mtu 1500`")
	}
	if in.Was.IsValid() {
		return pass(subject, "%v, link up; until %s it was %v", in.Address, in.Since.Format(time.DateTime),
			in.Was)
	}
	return pass(subject, "%v, link up", in.Address)
}
