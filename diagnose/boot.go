package diagnose

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
)

// How long each part of a boot may be silent before a diagnosis says so: three times the longest that was
// measured.
const (
	firmwareStarts = 3 * time.Minute // power-on to the first DHCP; large servers need more, and `why` says so
	firmwareAsks   = 15 * time.Second
	programStarts  = 30 * time.Second
	kernelStarts   = 90 * time.Second
	systemStarts   = 2 * time.Minute // of a deployed system, to its call home
)

// A boot is a machine that should boot from the network, and the moment of the diagnosis.
type boot struct {
	m       inventory.Machine
	now     time.Time
	started time.Time // when we switched it on; zero when we did not
}

// A breakdown says where a boot stopped.
type breakdown struct {
	stage, next string
	decisive    *inventory.Event
	underWay    bool // it may go on by itself
}

func inProgress(stage string) breakdown { return breakdown{stage: stage, next: "wait", underWay: true} }

// stopped says how far the network boot came since a moment. When the last boot has just begun, it describes
// the one before it, which shows more.
func (b boot) stopped(events []inventory.Event, from time.Time) breakdown {
	all := traces(events, from)
	last := b.where(&all[len(all)-1])
	if len(all) > 1 && last.underWay {
		if t := &all[len(all)-2]; t.agent == nil &&
			(t.script == nil || t.script.Data[inventory.DataAction] != string(ipxe.Local)) {
			before := b.at(t.last.Add(time.Hour)).where(t) // an hour later: it no longer counts as under way
			before.stage += fmt.Sprintf("; it began another boot %s ago", b.ago(all[len(all)-1].last))
			return before
		}
	}
	return last
}

func (b boot) at(now time.Time) boot {
	b.now = now
	return b
}

func (b boot) ago(t time.Time) string { return b.now.Sub(t).Round(time.Second).String() }

// console advises to look at the machine's console, with the command if it has a BMC.
func (b boot) console() string {
	if b.m.BMC.Address == "" {
		return "look at its console"
	}
	return "look at its console: `pxectl console " + b.m.Name + "`"
}

// quiet says whether the machine has sent nothing for that long.
func (b boot) quiet(t *trace, d time.Duration) bool { return b.now.Sub(t.last) >= d }

// where says how far one boot came, and adds its console's complaints.
func (b boot) where(t *trace) breakdown {
	br := b.onWire(t)
	if t.agent != nil || t.refused != nil {
		return br
	}
	br = b.withComplaints(t, br)
	if t.noConsole != nil && strings.Contains(br.next, "`pxectl console ") {
		br.next += " (when pxectl listened: " + t.noConsole.Data[inventory.DataAbsent] + ")"
	}
	return br
}

// onWire says how far one boot came on the wire. It looks from a boot's end to its beginning: the last part
// that succeeded decides.
func (b boot) onWire(t *trace) breakdown {
	switch {
	case t.empty():
		return b.unseen(t)
	case t.agent != nil:
		return breakdown{stage: "its agent called (" + t.agent.Text + ")", next: "wait", decisive: t.agent}
	case t.refused != nil:
		return breakdown{
			stage:    t.refused.Text,
			next:     "boot it from the network again: its script carries a fresh nonce",
			decisive: t.refused,
		}
	case t.script != nil:
		return b.scripted(t)
	case t.program != nil:
		return b.loaded(t)
	case t.tftp != nil:
		return b.transferring(t)
	}
	return b.asking(t)
}

// unseen is about a machine that has sent nothing.
func (b boot) unseen(t *trace) breakdown {
	cable := "is network boot first in its boot order, " +
		"and is the cable of that card in the provisioning network?"
	switch p := b.m.Power; {
	case t.elsewhere != nil:
		name := t.elsewhere.Data[inventory.DataInterface]
		return breakdown{
			stage: "its requests arrive on " + name + ", which is not a provisioning interface",
			next: "add " + name +
				" to provisioning.interfaces in appliance.yaml, " +
				"or plug the machine into the provisioning network",
			decisive: t.elsewhere,
		}
	case t.otherBoot != nil || t.otherLease != nil:
		ev := t.otherBoot
		if ev == nil {
			ev = t.otherLease
		}
		if mac := ev.Data[inventory.DataImpostor]; mac != "" {
			return breakdown{
				stage: "somebody answers it with our address " + ev.Data[inventory.DataServer] +
					", from the MAC " + mac + ", and its own requests do not reach us",
				next: FindImpostor(mac), decisive: ev,
			}
		}
		return breakdown{
			stage: "the DHCP server " + ev.Data[inventory.DataServer] +
				" answers it, and its own requests do not reach us",
			next:     "let UDP 67 in, and have the relay between send to this appliance too",
			decisive: ev,
		}
	case !b.started.IsZero() && b.now.Sub(b.started) < firmwareStarts:
		return inProgress(fmt.Sprintf("it was switched on %s ago and nothing was seen of it yet, "+
			"which is normal while its firmware starts", b.ago(b.started)))
	case p.Known && !p.On:
		return breakdown{
			stage: fmt.Sprintf("its BMC says that it is off (read %s ago)", b.ago(p.ObservedAt)),
			next:  "`pxectl power on " + b.m.Name + "`",
		}
	case p.Known:
		return breakdown{
			stage: fmt.Sprintf("its BMC says that it is on (read %s ago), "+
				"and nothing was seen of it on the wire", b.ago(p.ObservedAt)),
			next: cable + " Large servers need ten minutes before they ask; " + b.console(),
		}
	}
	return breakdown{stage: "nothing was seen of it on the wire", next: "is it on, " + cable}
}

// FindImpostor is the next move when a host answers DHCP with an address of ours.
func FindImpostor(mac string) string {
	return "find the host with the MAC " + mac + " in the switches' tables and take it off the network: it has " +
		"our address, or forges it; a relay that repeats our answers looks the same"
}

// asking is about a machine that came no further than DHCP.
func (b boot) asking(t *trace) breakdown {
	switch {
	case !b.quiet(t, firmwareAsks):
		return inProgress("it asked by DHCP " + b.ago(t.last) + " ago")
	case t.otherBoot != nil && (t.offered != nil || t.bootReply != nil):
		server := t.otherBoot.Data[inventory.DataServer]
		if mac := t.otherBoot.Data[inventory.DataImpostor]; mac != "" {
			return breakdown{
				stage: fmt.Sprintf("somebody with our address %s, from the MAC %s, told it to boot %q, "+
					"and it never asked us for our boot program", server, mac,
					t.otherBoot.Data[inventory.DataBoot]),
				next: FindImpostor(mac), decisive: t.otherBoot,
			}
		}
		return breakdown{
			stage: fmt.Sprintf("another DHCP server, %s, told it to boot %q, "+
				"and it never asked us for our boot program", server, t.otherBoot.Data[inventory.DataBoot]),
			next: "take the boot options (66, 67, next-server) out of " + server +
				", at least for this machine",
			decisive: t.otherBoot,
		}
	case (t.offered != nil || t.bootReply != nil && t.bootReply.Data[inventory.DataPort] == "67") &&
		t.request == nil:
		return breakdown{
			stage: "it has our offer and took no address: no DHCP server gave it one",
			next: "does the DHCP server of this network run, with free addresses? `pxectl doctor` " +
				"names those that were heard",
			decisive: cmp.Or(t.offered, t.bootReply),
		}
	case t.bootReply != nil && strings.HasPrefix(t.bootReply.Data[inventory.DataBoot], "http"):
		return breakdown{
			stage: "it was told to load " + withoutQuery(t.bootReply.Data[inventory.DataBoot]) +
				", and no request for it came",
			next: "let the HTTP port (http.port, TCP 8080 by default) in; " +
				"has it got an address from the DHCP server?",
			decisive: t.bootReply,
		}
	case t.bootReply != nil:
		return breakdown{
			stage: "it was told on port 4011 to fetch " + t.bootReply.Data[inventory.DataBoot] +
				", and no TFTP request for it came",
			next:     "let UDP 69 in, and " + b.console(),
			decisive: t.bootReply,
		}
	case t.offered != nil:
		server := cmp.Or(t.request.Data[inventory.DataSelected], "its DHCP server")
		return breakdown{
			stage: "it has our offer and an address from " + server +
				", and neither a request on port 4011 nor one by TFTP came",
			next: "let UDP 4011 and 69 in; or " + server +
				" told it to boot something else, in an answer that was not broadcast: " +
				b.console(),
			decisive: t.offered,
		}
	case t.unanswered != nil:
		return b.unanswered(t.unanswered)
	}
	return breakdown{
		stage:    "it took an address and did not ask what to boot",
		next:     "is network boot on in its firmware?",
		decisive: t.request,
	}
}

// transferring is about a machine that asked by TFTP and has no boot program yet.
func (b boot) transferring(t *trace) breakdown {
	file := t.tftp.Data[inventory.DataFile]
	br := breakdown{decisive: t.tftp}
	switch result(t.tftp) {
	case inventory.TFTPMissing:
		br.stage, br.next = fmt.Sprintf("it asked by TFTP for %q, which is not ours",
			file), "who told it that name? `pxectl doctor` names other DHCP servers with boot options"
		if t.otherBoot != nil {
			br.next = "take the boot options (66, 67, next-server) out of " +
				t.otherBoot.Data[inventory.DataServer] + ", which names that file"
			if mac := t.otherBoot.Data[inventory.DataImpostor]; mac != "" {
				br.next = "somebody with our address names that file: " + FindImpostor(mac)
			}
		}
	case inventory.TFTPMalformed:
		br.stage, br.next = "it sent no valid request to the TFTP port ("+t.tftp.Text+
			")", "look at it with `tcpdump -nX udp port 69`; another boot mode in its firmware may do; "+
			b.console()
	case inventory.TFTPStalled:
		br.stage = fmt.Sprintf("it asked for %s by TFTP, and the transfer stalls", file)
		br.next = "full-size frames get lost on the way: compare the MTU of all bridges, " +
			"VLANs and switch ports with 1500; then a firewall between, then the cable"
	case inventory.TFTPSize, inventory.TFTPSent:
		if !b.quiet(t, firmwareAsks) {
			return inProgress("it is about to fetch " + file + " by TFTP")
		}
		br.stage, br.next = "it asked by TFTP for "+file+" and went no further", b.console()
	default:
		br.stage, br.next = "its TFTP transfer failed ("+t.tftp.Text+")", b.console()
	}
	return br
}

// loaded is about a machine that has fetched a boot program. The program has not asked for its script.
func (b boot) loaded(t *trace) breakdown {
	name := t.program.Data[inventory.DataFile]
	if name == "" {
		name = withoutQuery(t.program.Data[inventory.DataPath])
	}
	switch {
	case !b.quiet(t, programStarts):
		return inProgress("it fetched " + name + " " + b.ago(t.last) + " ago")
	case t.ipxe != nil:
		return breakdown{
			stage: name + " runs and asked by DHCP, and no request for its script came", decisive: t.ipxe,
			next: "let the HTTP port (http.port, TCP 8080 by default) in, and " + b.console(),
		}
	}
	next := "the program does not run: "
	if strings.HasSuffix(name, ".efi") { // a BIOS has no Secure Boot
		next += "switch Secure Boot off; else "
	}
	return breakdown{
		stage:    "it fetched " + name + " whole, and that never asked for its script",
		decisive: t.program,
		next:     next + b.console(),
	}
}

// scripted is about a machine that has fetched its script. Its agent has not called.
func (b boot) scripted(t *trace) breakdown {
	console := b.console()
	br := breakdown{decisive: t.script}
	switch reason := t.script.Data[inventory.DataReason]; {
	case t.script.Data[inventory.DataAction] == string(ipxe.Local):
		br.stage, br.next = "its script sent it to its own disk ("+reason+
			")", "nothing, if it should; else `pxectl deploy` or `pxectl machine approve` it"
	case t.script.Data[inventory.DataAction] == string(ipxe.Wait):
		br.stage, br.next = "it waits in its boot program: "+
			reason, "`pxectl ramdisk build`; it goes on by itself"
	case t.cutOff != nil:
		br.decisive = t.cutOff
		br.stage = fmt.Sprintf("its download of %s was cut off after %s of %s bytes",
			t.cutOff.Data[inventory.DataPath], cmp.Or(t.cutOff.Data[inventory.DataBytes], "0"),
			t.cutOff.Data[inventory.DataWant])
		br.next = "packets get lost: compare the MTU of all bridges, VLANs and switch ports with 1500, " +
			"then the cable; " + console
	case t.kernel == nil && !b.quiet(t, programStarts),
		t.initrd == nil && t.kernel != nil && !b.quiet(t, kernelStarts):
		return inProgress("it asked for its script " + b.ago(t.script.At) + " ago and loads the ramdisk")
	case t.kernel == nil:
		br.stage, br.next = "it has its script and fetched no kernel", console
	case t.initrd == nil:
		br.stage, br.next, br.decisive = "it has the kernel and fetched no ramdisk", console, t.kernel
	case !b.quiet(t, kernelStarts):
		return inProgress("it has kernel and ramdisk since " + b.ago(t.initrd.At) +
			", and its agent has not called yet")
	case t.system != nil:
		br.stage, br.decisive = "it has kernel and ramdisk, the kernel runs and asked for an address, "+
			"and its agent never called", t.system
		br.next = "let the agents' port (TCP 8443) in; " + console
	default:
		br.stage, br.decisive = "it has kernel and ramdisk, and its agent never called: "+
			"the kernel does not start, or has no driver for the network card"+b.card(t), t.initrd
		br.next = console + "; a driver goes into the ramdisk with `pxectl ramdisk build --with MODULE`"
	}
	return br
}

// card names the network card that the machine booted from, if it is known.
func (b boot) card(t *trace) string {
	nic := t.script.Data[inventory.DataNIC]
	if b.m.Report != nil {
		for _, p := range b.m.Report.PCI {
			if p.Vendor+":"+p.Device == nic && p.Driver == "" {
				return " (" + strings.TrimSpace(nic+" "+p.Name) + "; when it was inspected there was none)"
			}
		}
		if other := withoutDriver(b.m.Report, "02"); other != "" {
			return " (when it was inspected, there was none for " + other + ")"
		}
	}
	if nic == "" {
		return ""
	}
	return " (PCI " + nic + ")"
}

// withoutQuery cuts iPXE's settings off a URL.
func withoutQuery(u string) string {
	u, _, _ = strings.Cut(u, "?")
	return u
}
