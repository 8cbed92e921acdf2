package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

// A Diagnosis says how far a machine came, why not further, and what to do next.
type Diagnosis struct {
	Machine  inventory.MachineID `json:"machine,omitempty"`
	Sentence string              `json:"sentence"`
	Next     string              `json:"next"`
	Evidence []inventory.Event   `json:"evidence"` // oldest first
}

// evidence is how many of the last events a diagnosis shows.
const evidence = 12

// Machine diagnoses a machine. run is its current or last deployment, or nil; events are its timeline.
func Machine(
	m inventory.Machine, run *inventory.Deployment, events []inventory.Event, now time.Time,
) Diagnosis {
	events = inOrder(events)
	d := withSystem(diagnose(facts{m, run}, events, now), facts{m, run})
	return withSameUUID(withIntruder(d, m, events), m, events)
}

// facts are a machine and its current or last deployment.
type facts struct {
	m inventory.Machine
	d *inventory.Deployment
}

// withSystem adds that a failed deployment left the system that was deployed before, and what its boot did to
// it.
func withSystem(d Diagnosis, s facts) Diagnosis {
	if s.m.State != inventory.Failed || !s.m.Intact(s.d) {
		return d
	}
	switch cut := s.m.Interrupted; {
	case s.d.Step == inventory.Validate:
		d.Sentence += " Nothing was done to the machine: its system is as it was."
	case cut != nil && cut.Run == s.d.ID:
		d.Sentence += fmt.Sprintf(" Its disk was not touched: its system is there, but was cut off, "+
			"since the machine was %s for the boot.", cut)
	default:
		d.Sentence += " Its disk was not touched: its system is there."
	}
	return d
}

// withIntruder adds that a second agent showed this boot's nonce: a stranger, or the machine's own agent after
// a stranger.
func withIntruder(d Diagnosis, m inventory.Machine, events []inventory.Event) Diagnosis {
	if m.Boot == nil {
		return d
	}
	for i := len(events) - 1; i >= 0 && !events[i].At.Before(m.Boot.RegisteredAt); i-- {
		who, ok := events[i].Data[inventory.DataIntruder]
		if !ok || events[i].Data[inventory.DataUUID] != "" {
			continue
		}
		d.Sentence += fmt.Sprintf(" Somebody at %s showed the nonce of this boot at %s and was refused, "+
			"since the agent at %s had spent it.",
			who, events[i].At.Local().Format(time.TimeOnly), m.Boot.IP)
		move := "if " + who + " is the machine and " + m.Boot.IP +
			" is not, boot it from the network again; a stranger on that network replays boot scripts"
		return d.and(move, &events[i])
	}
	return d
}

// withSameUUID adds that another MAC said the UUID by which alone the machine was announced.
func withSameUUID(d Diagnosis, m inventory.Machine, events []inventory.Event) Diagnosis {
	if m.Adopted == "" {
		return d
	}
	for i := len(events) - 1; i >= 0; i-- {
		ev := events[i]
		if ev.Data[inventory.DataUUID] == "" || ev.Data[inventory.DataUUID] != m.UUID {
			continue
		}
		first := string(m.Adopted)
		if m.Boot != nil {
			first += " (last at " + m.Boot.IP + ")"
		}
		d.Sentence += fmt.Sprintf(" It was announced by its UUID alone, and %s was the first to say that; %s at %s "+
			"said it, too, at %s.", first, ev.MAC, ev.Data[inventory.DataIntruder],
			ev.At.Local().Format(time.TimeOnly))
		return d.and(fmt.Sprintf("if %s is the machine and %s is not, `pxectl machine delete %s`, and approve the "+
			"other one or announce it by its MAC", ev.MAC, m.Adopted, m.Name), &events[i])
	}
	return d
}

// and adds a next move, and the event that it follows from.
func (d Diagnosis) and(move string, decisive *inventory.Event) Diagnosis {
	if d.Next == "nothing to do" {
		d.Next = move
	} else {
		d.Next += "; " + move
	}
	d.Evidence = withDecisive(d.Evidence, decisive)
	return d
}

// diagnose diagnoses a machine of the inventory. It reads only values, so its test is a table.
func diagnose(s facts, events []inventory.Event, now time.Time) Diagnosis {
	m := s.m
	d := Diagnosis{Machine: m.ID, Evidence: lastOf(events, evidence)}
	say := func(next, format string, args ...any) Diagnosis {
		d.Sentence, d.Next = m.Name+" "+fmt.Sprintf(format, args...), next
		return d
	}
	saw := func(b breakdown) { d.Evidence = withDecisive(d.Evidence, b.decisive) }
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	if m.Maintenance != nil {
		return say("`pxectl machine edit "+m.Name+" --no-maintenance` ends it",
			"has been in maintenance for %s: %s. pxectl does nothing to it by itself.",
			since(m.Maintenance.Since), m.Maintenance.Reason)
	}
	undriven := withoutDriver(m.Report, "01")
	switch {
	case m.State == inventory.Failed && m.Failure != nil && m.Failure.Step == string(inventory.BootAgent) &&
		s.attempted():
		b := boot{m: m, now: now}.stopped(events, s.lastAttempt().BeganAt)
		saw(b)
		return say(b.next, "failed at %s: %s; in its last attempt, %s.", m.Failure.Step, m.Failure.Reason,
			b.stage)
	case m.State == inventory.Failed && m.Failure != nil && undriven != "" && noDisk(m.Report):
		return say(buildWith, "failed at %s: %s; the agent has no driver for %s.", m.Failure.Step,
			m.Failure.Reason, undriven)
	case m.State == inventory.Failed && m.Failure != nil:
		return say(m.Failure.Hint, "failed at %s: %s.", m.Failure.Step, m.Failure.Reason)
	case s.m.Runs(s.d):
		return whyDeploying(s, events, now, say, saw)
	case m.State == inventory.Discovered && m.BMC.Proposed != nil && m.BMC.Address == "":
		return say("`"+AcceptCommand(m)+"`, if it is yours and that is its BMC",
			"registered itself %s ago and waits for approval; its agent reports the BMC at %s.",
			since(m.CreatedAt), m.BMC.Proposed.Address)
	case m.State == inventory.Discovered:
		return say("`pxectl machine approve "+m.Name+"`, if it is yours",
			"registered itself %s ago and waits for approval.", since(m.CreatedAt))
	case m.State == inventory.Enrolled:
		b := boot{m: m, now: now}.stopped(events, time.Time{})
		saw(b)
		if m.BMC.Error != "" {
			return say(askBMC(m)+"; "+b.next,
				"is enrolled and its agent has not called yet: %s; and its BMC is in trouble: %s.", b.stage,
				m.BMC.Error)
		}
		return say(b.next, "is enrolled and its agent has not called yet: %s.", b.stage)
	case m.State == inventory.Inspecting:
		return say("wait; it takes seconds", "has been under inspection for %s.", since(m.ChangedAt))
	case m.State == inventory.Available && undriven != "" && noDisk(m.Report):
		return say(buildWith, "is available and has no disk to deploy to: the agent has no driver for %s.",
			undriven)
	case m.BMC.Proposed != nil && m.BMC.Error != "":
		return say("`"+AcceptCommand(m)+"`, if that is right",
			"is %s, but its BMC is in trouble: %s; and %s.", m.State, m.BMC.Error, UnacceptedBMC(m))
	case m.BMC.Proposed != nil:
		return say("`"+AcceptCommand(m)+"`, if that is right", "is %s, and %s: nothing is sent there.",
			m.State, UnacceptedBMC(m))
	case m.BMC.Error != "":
		return say(askBMC(m), "is %s, but its BMC is in trouble: %s.", m.State, m.BMC.Error)
	case m.State == inventory.Deployed && m.Interrupted != nil:
		next := "`pxectl power on " + m.Name + "`"
		if m.Interrupted.On {
			next = "look at its console: `pxectl console " + m.Name +
				"`; cloud-init calls home once for each deployment, so nothing else may tell"
		}
		return say(next,
			"is deployed, and its system was cut off %s ago: "+
				"the machine was %s for %s, which went no further. The system has not called home since%s.",
			since(m.Interrupted.At), m.Interrupted, m.Interrupted.Run, lastProof(m))
	case m.State == inventory.Deployed && m.Unverified:
		return say("look at its console: `pxectl console "+m.Name+
			"`; does the image run cloud-init, and did user-data replace phone_home?",
			"is deployed, but never phoned home (%s).", m.LastProof)
	}
	d.Evidence = lastOf(events, 3)
	return say("nothing to do", "is %s, as it should be%s.", m.State, lastProof(m))
}

// lastProof returns a machine's last proof, for the end of a sentence, or "" when there is none.
func lastProof(m inventory.Machine) string {
	if m.LastProof == "" {
		return ""
	}
	return " (last proof: " + m.LastProof + ")"
}

// askBMC is the next move when a machine's BMC is in trouble.
func askBMC(m inventory.Machine) string {
	again := "`pxectl power status " + m.Name + "` asks it again"
	if m.BMC.Refused {
		return Credentials(m) + ", then " + again
	}
	return again
}

func whyDeploying(
	s facts, events []inventory.Event, now time.Time, say func(string, string,
		...any) Diagnosis, saw func(breakdown),
) Diagnosis {
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	r := s.d.Record()
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
			b.stage += "; " + UnacceptedBMC(s.m)
			b.next = "reboot it into network boot, or let its BMC do that, if the address is right: `" +
				AcceptCommand(s.m) + "`"
		}
		return say(b.next, "has been booting into the agent for %s (attempt %d of %d): %s; %s.",
			since(r.BeganAt), r.Attempt, inventory.MaxBoots, b.stage, left)
	case inventory.VerifyOS:
		if now.Sub(r.BeganAt) < systemStarts {
			return say("wait",
				"was started from its disk %s ago, and its system has not phoned home yet; "+
					"that takes a minute or more; %s.", since(r.BeganAt), left)
		}
		return say("look at its console: `pxectl console "+s.m.Name+"`",
			"was started from its disk %s ago, and its system has not phoned home yet; %s.", since(r.BeganAt),
			left)
	}
	run := "deployment"
	if s.d.Erase != nil {
		run = "erasure"
	}
	return say("wait, or `pxectl deployment cancel "+string(s.d.ID)+"`",
		"has been at %s of %s %s for %s; %s.", r.Step, run, s.d.ID, since(r.BeganAt), left)
}

// attempted says whether the machine was started for its deployment. Without a BMC, an operator does that.
func (s facts) attempted() bool {
	r := s.lastAttempt()
	return r != nil && (!r.ActedAt.IsZero() || s.m.BMC.Address == "")
}

// lastAttempt is the record of the last time that the machine was booted into the agent for its deployment.
func (s facts) lastAttempt() *inventory.StepRecord {
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

// Stranger diagnoses a MAC that no machine has, from the events about it.
func Stranger(mac inventory.MAC, events []inventory.Event, now time.Time) Diagnosis {
	events = inOrder(events)
	b := boot{m: inventory.Machine{Name: string(mac)}, now: now}.stopped(events, time.Time{})
	return Diagnosis{
		Sentence: fmt.Sprintf("%s belongs to no machine yet: %s.", mac, b.stage), Next: b.next,
		Evidence: withDecisive(lastOf(events, evidence), b.decisive),
	}
}

const buildWith = "put the driver into the ramdisk (`pxectl ramdisk build --with MODULE`), " +
	"and boot the machine again"

// mostNamed is how many devices a sentence names.
const mostNamed = 3

// withoutDriver names the PCI devices of a base class (01 mass storage, 02 network) for which the ramdisk has
// no driver, the first few of them.
func withoutDriver(r *inventory.Report, class string) string {
	if r == nil {
		return ""
	}
	var names []string
	for _, p := range r.PCI {
		if p.Driver == "" && strings.HasPrefix(p.Class, class) && p.Vendor != "" && p.Device != "" {
			names = append(names, strings.TrimSpace(fmt.Sprintf("%s:%s %s", p.Vendor, p.Device, p.Name)))
		}
	}
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, " and ")
}

// noDisk says whether the agent found no disk that a system could be written to.
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
	if decisive == nil ||
		slices.ContainsFunc(last, func(e inventory.Event) bool { return e.Seq == decisive.Seq }) {
		return last
	}
	return append([]inventory.Event{*decisive}, last[1:]...)
}

// inOrder sorts events by their time. Their numbers have another order: the timeline numbers packets later
// than a worker numbers its own events.
func inOrder(events []inventory.Event) []inventory.Event {
	slices.SortStableFunc(events, func(a, b inventory.Event) int { return a.At.Compare(b.At) })
	return events
}
