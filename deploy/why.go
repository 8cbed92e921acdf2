package deploy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/console"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
	"github.com/pxectl/pxectl/power"
)

// evidence is how many events stand under a diagnosis.
const evidence = 12

// Why says how far a machine came, why not further, and what to do next. ref may be a MAC that is no machine's yet.
func (e *Engine) Why(ref string) (Diagnosis, error) {
	now := e.cfg.Now()
	w, err := e.find(ref)
	if err == nil {
		s := w.snap.Load()
		var events []inventory.Event
		if err := e.cfg.Store.View(func(tx *boltdb.Tx) (err error) {
			events, err = tx.Timeline(s.m, 0, boltdb.PerMachine+boltdb.Unowned)
			return err
		}); err != nil {
			return Diagnosis{}, err
		}
		d := withIntruder(diagnose(*s, inOrder(events), now), s.m, events)
		if shows := w.console.Shows(); len(shows) > 0 {
			d.Evidence = append(d.Evidence, inventory.Event{Machine: w.id, At: now.UTC(), Kind: "console", Text: "its console shows " + console.Quoted(shows)})
		}
		return d, nil
	}
	if infiniBand.MatchString(ref) {
		return Diagnosis{}, &inventory.Problem{
			Code: inventory.CodeNotFound, Detail: ref + " is the address of an InfiniBand card, and machines are known by their Ethernet addresses",
			Hint: "boot it from an Ethernet card, or from one that tells an Ethernet address as its client identifier",
		}
	}
	mac, perr := inventory.ParseMAC(ref)
	if perr != nil {
		return Diagnosis{}, err
	}
	var events []inventory.Event
	if err := e.cfg.Store.View(func(tx *boltdb.Tx) (err error) {
		events, err = tx.Timeline(inventory.Machine{MACs: []inventory.MAC{mac}}, 0, boltdb.Unowned)
		return err
	}); err != nil {
		return Diagnosis{}, err
	}
	if len(events) == 0 {
		detail := fmt.Sprintf("%s is no machine's, and nothing was seen of it on the wire", mac)
		if at := e.infiniBandSeen(); !at.IsZero() {
			detail += fmt.Sprintf("; an InfiniBand card, which tells no such address, asked to boot %s ago", now.Sub(at).Round(time.Second))
		}
		return Diagnosis{}, &inventory.Problem{
			Code: inventory.CodeNotFound, Detail: detail,
			Hint: "is that the MAC of the card that boots, is it on, is network boot first in its boot order, and is its cable in the provisioning network? `pxectl events` shows what was seen of others",
		}
	}
	return diagnoseStranger(mac, inOrder(events), now), nil
}

// infiniBand is such a card's address: RFC 4391 section 9.1.1.
var infiniBand = regexp.MustCompile(`^(?:[0-9a-fA-F]{2}[-:]){19}[0-9a-fA-F]{2}$`)

// infiniBandSeen is when such a card asked for a boot program last. Its packets are no machine's.
func (e *Engine) infiniBandSeen() (at time.Time) {
	_ = e.cfg.Store.View(func(tx *boltdb.Tx) error {
		events, err := tx.Timeline(inventory.Machine{MACs: []inventory.MAC{""}}, 0, boltdb.Unowned)
		for _, ev := range events {
			if ev.Data[inventory.DataInfiniBand] != "" && ev.At.After(at) {
				at = ev.At
			}
		}
		return err
	})
	return at
}

// withIntruder adds that somebody showed this boot's nonce who is not the agent that registered: a stranger, or the machine's own
// agent that came after one.
func withIntruder(d Diagnosis, m inventory.Machine, events []inventory.Event) Diagnosis {
	if m.Boot == nil {
		return d
	}
	for i := len(events) - 1; i >= 0 && !events[i].At.Before(m.Boot.RegisteredAt); i-- {
		who, ok := events[i].Data[inventory.DataIntruder]
		if !ok {
			continue
		}
		d.Sentence += fmt.Sprintf(" Somebody at %s showed the nonce of this boot at %s, which the agent at %s had spent, and was refused.",
			who, events[i].At.Local().Format(time.TimeOnly), m.Boot.IP)
		move := "if " + who + " is the machine and " + m.Boot.IP + " is not, boot it from the network again; a stranger on that network replays boot scripts"
		if d.Next == "nothing to do" {
			d.Next = move
		} else {
			d.Next += "; " + move
		}
		d.Evidence = withDecisive(d.Evidence, &events[i])
		return d
	}
	return d
}

// diagnose is about a known machine. It reads values only, so its test is a table.
func diagnose(s snapshot, events []inventory.Event, now time.Time) Diagnosis {
	m := s.m
	d := Diagnosis{Machine: m.ID, Evidence: lastOf(events, evidence)}
	say := func(next, format string, args ...any) Diagnosis {
		d.Sentence, d.Next = m.Name+" "+fmt.Sprintf(format, args...), next
		return d
	}
	saw := func(b breakdown) { d.Evidence = withDecisive(d.Evidence, b.decisive) }
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	if m.Maintenance != nil {
		return say("`pxectl machine edit "+m.Name+" --no-maintenance` ends it", "is in maintenance since %s: %s. Nothing automatic happens to it.", since(m.Maintenance.Since), m.Maintenance.Reason)
	}
	undriven := withoutDriver(m.Report, "01")
	switch {
	case m.State == inventory.Failed && m.Failure != nil && m.Failure.Step == string(inventory.BootAgent) && s.walked():
		b := boot{m: m, now: now}.stopped(events, s.lastWalk().BeganAt)
		saw(b)
		return say(b.next, "failed at %s: %s; in its last walk, %s.", m.Failure.Step, m.Failure.Reason, b.stage)
	case m.State == inventory.Failed && m.Failure != nil && undriven != "" && noDisk(m.Report):
		return say(buildWith, "failed at %s: %s; the agent has no driver for %s.", m.Failure.Step, m.Failure.Reason, undriven)
	case m.State == inventory.Failed && m.Failure != nil:
		return say(m.Failure.Hint, "failed at %s: %s.", m.Failure.Step, m.Failure.Reason)
	case s.running():
		return whyDeploying(s, events, now, say, saw)
	case m.State == inventory.Discovered && m.BMC.Proposed != nil && m.BMC.Address == "":
		return say("`pxectl machine approve "+m.Name+"`, if it is yours; that accepts this BMC", "registered itself %s ago and waits for approval; its agent reports the BMC at %s.", since(m.CreatedAt), m.BMC.Proposed.Address)
	case m.State == inventory.Discovered:
		return say("`pxectl machine approve "+m.Name+"`, if it is yours", "registered itself %s ago and waits for approval.", since(m.CreatedAt))
	case m.State == inventory.Enrolled:
		b := boot{m: m, now: now}.stopped(events, time.Time{})
		saw(b)
		if m.BMC.Error != "" {
			return say(askBMC(m)+"; "+b.next, "is enrolled and its agent has not called yet: %s; and its BMC is in trouble: %s.", b.stage, m.BMC.Error)
		}
		return say(b.next, "is enrolled and its agent has not called yet: %s.", b.stage)
	case m.State == inventory.Inspecting:
		return say("wait; it takes seconds", "is being inspected since %s.", since(m.ChangedAt))
	case m.State == inventory.Available && undriven != "" && noDisk(m.Report):
		return say(buildWith, "is available and has no disk to deploy to: the agent has no driver for %s.", undriven)
	case m.BMC.Proposed != nil && m.BMC.Error != "":
		return say("`"+AcceptCommand(m)+"`, if that is right", "is %s, but its BMC is in trouble: %s; and %s.", m.State, m.BMC.Error, Unaccepted(m))
	case m.BMC.Proposed != nil:
		return say("`"+AcceptCommand(m)+"`, if that is right", "is %s, and %s: nothing is sent there.", m.State, Unaccepted(m))
	case m.BMC.Error != "":
		return say(askBMC(m), "is %s, but its BMC is in trouble: %s.", m.State, m.BMC.Error)
	case m.State == inventory.Deployed && m.Unverified:
		return say("look at its console: `pxectl console "+m.Name+"`; does the image run cloud-init, and did user-data replace phone_home?", "is deployed, but never phoned home (%s).", m.LastProof)
	}
	d.Evidence = lastOf(events, 3)
	return say("nothing to do", "is %s, as it should be (last proof: %s).", m.State, orNone(m.LastProof))
}

// askBMC is the next move when a machine's BMC is in trouble.
func askBMC(m inventory.Machine) string {
	again := "`pxectl power status " + m.Name + "` asks it again"
	if strings.Contains(m.BMC.Error, power.ErrRefused.Error()) {
		return credentials(m) + ", then " + again
	}
	return again
}

func whyDeploying(s snapshot, events []inventory.Event, now time.Time, say func(string, string, ...any) Diagnosis, saw func(breakdown)) Diagnosis {
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	r := s.record()
	if r == nil {
		return say("wait a moment", "is between two steps of deployment %s.", s.d.ID)
	}
	left := fmt.Sprintf("its deadline is at %s", r.Deadline.Local().Format(time.TimeOnly))
	switch r.Step {
	case inventory.BootAgent:
		if r.ActedAt.IsZero() && s.m.BMC.Address != "" {
			return say("wait a moment", "is being switched off and on by its BMC, to boot into the agent.")
		}
		b := boot{m: s.m, now: now, started: r.ActedAt}.stopped(events, r.BeganAt)
		saw(b)
		if s.m.BMC.Address == "" && s.m.BMC.Proposed != nil {
			b.stage += "; " + Unaccepted(s.m)
			b.next = "reboot it into network boot, or let its BMC do that, if the address is right: `" + AcceptCommand(s.m) + "`"
		}
		return say(b.next, "is being booted into the agent since %s (walk %d of %d): %s; %s.", since(r.BeganAt), r.Attempt, MaxBoots, b.stage, left)
	case inventory.VerifyOS:
		if now.Sub(r.BeganAt) < systemStarts {
			return say("wait", "was started from its disk %s ago, and its system has not phoned home yet; that takes a minute or more; %s.", since(r.BeganAt), left)
		}
		return say("look at its console: `pxectl console "+s.m.Name+"`", "was started from its disk %s ago, and its system has not phoned home yet; %s.", since(r.BeganAt), left)
	}
	run := "deployment"
	if s.d.Erase != nil {
		run = "erasure"
	}
	return say("wait, or `pxectl deployment cancel "+string(s.d.ID)+"`", "is at %s of %s %s since %s; %s.", r.Step, run, s.d.ID, since(r.BeganAt), left)
}

// walked says that the machine was really started for its deployment, by us or without a BMC by somebody.
func (s *snapshot) walked() bool {
	r := s.lastWalk()
	return r != nil && (!r.ActedAt.IsZero() || s.m.BMC.Address == "")
}

// lastWalk is the record of the last time that the machine was booted into the agent for its deployment.
func (s *snapshot) lastWalk() *inventory.StepRecord {
	if s.d == nil {
		return nil
	}
	for i := len(s.d.History) - 1; i >= 0; i-- {
		if r := &s.d.History[i]; r.Step == inventory.BootAgent {
			return r
		}
	}
	return nil
}

// diagnoseStranger is about a MAC that no machine has.
func diagnoseStranger(mac inventory.MAC, events []inventory.Event, now time.Time) Diagnosis {
	b := boot{m: inventory.Machine{Name: string(mac)}, now: now}.stopped(events, time.Time{})
	return Diagnosis{
		Sentence: fmt.Sprintf("%s is no machine's yet: %s.", mac, b.stage), Next: b.next,
		Evidence: withDecisive(lastOf(events, evidence), b.decisive),
	}
}

const buildWith = "put the driver into the ramdisk (`pxectl ramdisk build --with MODULE`), and boot the machine again"

// withoutDriver names the PCI devices of a base class (01 mass storage, 02 network) that nothing in the ramdisk drives.
func withoutDriver(r *inventory.Report, class string) string {
	if r == nil {
		return ""
	}
	var names []string
	for _, p := range r.PCI {
		if p.Driver == "" && strings.HasPrefix(p.Class, class) {
			names = append(names, strings.TrimSpace(fmt.Sprintf("%s:%s %s", p.Vendor, p.Device, p.Name)))
		}
	}
	return strings.Join(names, " and ")
}

// noDisk says that the agent found no disk that a system could be written to.
func noDisk(r *inventory.Report) bool {
	for _, d := range r.Disks {
		if !d.ReadOnly && !d.Removable && d.Transport != "usb" {
			return false
		}
	}
	return true
}

func lastOf(events []inventory.Event, n int) []inventory.Event {
	if len(events) > n {
		events = events[len(events)-n:]
	}
	return events
}

// withDecisive puts the event that decided a diagnosis before the last ones, unless it is among them.
func withDecisive(last []inventory.Event, decisive *inventory.Event) []inventory.Event {
	if decisive == nil || slices.ContainsFunc(last, func(e inventory.Event) bool { return e.Seq == decisive.Seq }) {
		return last
	}
	return append([]inventory.Event{*decisive}, last[1:]...)
}

// inOrder sorts events by their time: what is noted on the way is numbered a moment later than what a worker writes.
func inOrder(events []inventory.Event) []inventory.Event {
	slices.SortStableFunc(events, func(a, b inventory.Event) int { return a.At.Compare(b.At) })
	return events
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
