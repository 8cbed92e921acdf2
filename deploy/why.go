package deploy

import (
	"fmt"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
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
		return diagnose(*s, events, now), nil
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
	return diagnoseStranger(mac, events), nil
}

// diagnose is about a known machine. It reads values only, so its test is a table.
func diagnose(s snapshot, events []inventory.Event, now time.Time) Diagnosis {
	m := s.m
	d := Diagnosis{Machine: m.ID, Evidence: lastOf(events, evidence)}
	say := func(next, format string, args ...any) Diagnosis {
		d.Sentence, d.Next = m.Name+" "+fmt.Sprintf(format, args...), next
		return d
	}
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	if m.Maintenance != nil {
		return say("`pxectl machine edit "+m.Name+" --no-maintenance` ends it", "is in maintenance since %s: %s. Nothing automatic happens to it.", since(m.Maintenance.Since), m.Maintenance.Reason)
	}
	switch {
	case m.State == inventory.Failed && m.Failure != nil:
		return say(m.Failure.Hint, "failed at %s: %s.", m.Failure.Step, m.Failure.Reason)
	case s.running():
		return whyDeploying(s, events, say, since)
	case m.State == inventory.Discovered:
		return say("`pxectl machine approve "+m.Name+"`, if it is yours", "registered itself %s ago and waits for approval.", since(m.CreatedAt))
	case m.State == inventory.Enrolled:
		stage, next := chain(m.Name, events, m.CreatedAt)
		return say(next, "is enrolled and its agent has not called yet: %s.", stage)
	case m.State == inventory.Inspecting:
		return say("wait; it takes seconds", "is being inspected since %s.", since(m.ChangedAt))
	case m.BMC.Error != "":
		return say("`pxectl power status "+m.Name+"` asks again", "is %s, but its BMC is in trouble: %s.", m.State, m.BMC.Error)
	case m.State == inventory.Deployed && m.Unverified:
		return say("look at its console: `pxectl console "+m.Name+"`; does the image run cloud-init, and did user-data replace phone_home?", "is deployed, but never phoned home (%s).", m.LastProof)
	}
	d.Evidence = lastOf(events, 3)
	return say("nothing to do", "is %s, as it should be (last proof: %s).", m.State, orNone(m.LastProof))
}

func whyDeploying(s snapshot, events []inventory.Event, say func(string, string, ...any) Diagnosis, since func(time.Time) string) Diagnosis {
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
		stage, next := chain(s.m.Name, events, r.BeganAt)
		return say(next, "is being booted into the agent since %s (walk %d of %d): %s; %s.", since(r.BeganAt), r.Attempt, MaxBoots, stage, left)
	case inventory.VerifyOS:
		return say("look at its console: `pxectl console "+s.m.Name+"`", "was started from its disk %s ago, and its system has not phoned home yet; %s.", since(r.BeganAt), left)
	}
	return say("wait, or `pxectl deployment cancel "+string(s.d.ID)+"`", "is at %s of deployment %s since %s; %s.", r.Step, s.d.ID, since(r.BeganAt), left)
}

// chain tells how far a network boot came since a moment: DHCP, boot program, script, ramdisk, agent.
func chain(name string, events []inventory.Event, from time.Time) (stage, next string) {
	stage, next = "nothing was seen of it on the wire", "is it on, is network boot first in its boot order, and is its cable in the provisioning network?"
	for _, ev := range events {
		if ev.At.Before(from) {
			continue
		}
		switch ev.Kind {
		case "dhcp":
			if ev.Data["class"] == "other" {
				continue
			}
			stage, next = "it asked by DHCP ("+ev.Text+")", "if nothing follows, another DHCP server's boot file may have won, or a firewall drops UDP 69 or 4011"
		case "tftp":
			stage, next = "it fetched by TFTP ("+ev.Text+")", "if no script request follows, the boot program does not run on this firmware (Secure Boot?)"
		case "http":
			stage, next = "it asked by HTTP ("+ev.Text+")", "if the agent does not follow, look at the console: `pxectl console "+name+"`"
		case "agent":
			stage, next = "its agent called ("+ev.Text+")", "wait"
		}
	}
	return stage, next
}

// diagnoseStranger is about a MAC that no machine has.
func diagnoseStranger(mac inventory.MAC, events []inventory.Event) Diagnosis {
	d := Diagnosis{Evidence: lastOf(events, evidence)}
	stage, next := chain(string(mac), events, time.Time{})
	d.Sentence, d.Next = fmt.Sprintf("%s is no machine's yet: %s.", mac, stage), next
	return d
}

func lastOf(events []inventory.Event, n int) []inventory.Event {
	if len(events) > n {
		events = events[len(events)-n:]
	}
	return events
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
