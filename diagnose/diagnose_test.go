package diagnose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/inventory"
)

func TestDiagnose(t *testing.T) {
	d := func(step inventory.Step, outcome inventory.Outcome, began, acted int) *inventory.Deployment {
		r := inventory.StepRecord{
			Step: step, Attempt: 1,
			BeganAt: noon.Add(time.Duration(began) * time.Second), Deadline: noon.Add(time.Hour),
		}
		if acted > 0 {
			r.ActedAt = noon.Add(time.Duration(acted) * time.Second)
		}
		return &inventory.Deployment{
			ID: "d-1", Step: step, Outcome: outcome,
			History: []inventory.StepRecord{r},
		}
	}
	megaraid := &inventory.Report{PCI: []inventory.PCIDevice{{
		Class: "010400", Vendor: "1000", Device: "10e2",
		Name: "MegaRAID 12GSAS/PCIe",
	}, {Class: "010601", Driver: "ahci"}}}
	claims := &inventory.Report{PCI: make([]inventory.PCIDevice, 1000)}
	for i := range claims.PCI {
		claims.PCI[i] = inventory.PCIDevice{Class: "010400", Vendor: "1000", Device: fmt.Sprintf("%04x", i)}
	}
	bmc := inventory.BMC{Address: "192.0.2.51"}
	for name, c := range map[string]struct {
		m              inventory.Machine
		d              *inventory.Deployment
		events         []inventory.Event
		second         int
		sentence, next string // beginnings
	}{
		"just deployed": {
			m:        inventory.Machine{State: inventory.Deploying},
			d:        d(inventory.Validate, inventory.Running, 0, 0),
			second:   1,
			sentence: "m1 has been at validate of deployment d-1 for 1s", next: "wait",
		},
		"being switched": {
			m:        inventory.Machine{State: inventory.Deploying, BMC: bmc},
			d:        d(inventory.BootAgent, inventory.Running, 0, 0),
			second:   3,
			sentence: "m1 is being switched off and on by its BMC", next: "wait",
		},
		"just switched on": {
			m:      inventory.Machine{State: inventory.Deploying, BMC: bmc},
			d:      d(inventory.BootAgent, inventory.Running, 0, 4),
			second: 10,
			sentence: "m1 has been booting into the agent for 10s (attempt 1 of 3): " +
				"it was switched on 6s ago and nothing was seen of it yet, which is normal",
			next: "wait",
		},
		"on for long, and no event": {
			m: inventory.Machine{
				State: inventory.Deploying,
				BMC:   bmc,
				Power: inventory.Power{Known: true, On: true, ObservedAt: noon},
			},
			d:      d(inventory.BootAgent, inventory.Running, 0, 4),
			second: 600,
			sentence: "m1 has been booting into the agent for 10m0s (attempt 1 of 3): " +
				"its BMC says that it is on (read 10m0s ago), and nothing was seen",
			next: "is network boot first",
		},
		"events of an earlier boot do not count": {
			m:      inventory.Machine{State: inventory.Deploying, BMC: bmc},
			d:      d(inventory.BootAgent, inventory.Running, 100, 104),
			events: uefiBoot,
			second: 110,
			sentence: "m1 has been booting into the agent for 10s (attempt 1 of 3): " +
				"it was switched on 6s ago and nothing was seen of it yet",
			next: "wait",
		},
		"failed to boot the agent": {
			m: inventory.Machine{
				State:   inventory.Failed,
				Failure: &inventory.Failure{Step: "boot-agent", Reason: "no proof within 30m0s", Hint: "…"},
			},
			d:      d(inventory.BootAgent, inventory.FailedOut, 0, 1),
			events: upTo(3),
			second: 3600,
			sentence: "m1 failed at boot-agent: no proof within 30m0s; " +
				"in its last attempt, it has our offer and an address from 10.77.0.2, and neither",
			next: "let UDP 4011 and 69 in",
		},
		"its BMC did not start it": {
			m: inventory.Machine{
				State: inventory.Failed,
				BMC:   bmc,
				Failure: &inventory.Failure{
					Step:   "boot-agent",
					Reason: "power off: no answer",
					Hint:   "look at its cable",
				},
			},
			d:        d(inventory.BootAgent, inventory.FailedOut, 0, 0),
			second:   60,
			sentence: "m1 failed at boot-agent: power off: no answer.", next: "look at its cable",
		},
		"no driver for its disks": {
			m: inventory.Machine{
				State:   inventory.Failed,
				Failure: &inventory.Failure{Step: "validate", Reason: "no disk"},
				Report:  megaraid,
			},
			d: d(inventory.Validate, inventory.FailedOut, 0, 0),
			sentence: "m1 failed at validate: no disk; the agent has no driver for 1000:10e2 MegaRAID " +
				"12GSAS/PCIe.",
			next: "put the driver into the ramdisk",
		},
		"available without a disk": {
			m:        inventory.Machine{State: inventory.Available, Report: megaraid},
			sentence: "m1 is available and has no disk to deploy to: the agent has no driver for 1000:10e2",
			next:     "put the driver into the ramdisk",
		},
		"no driver for a thousand devices": {
			m: inventory.Machine{State: inventory.Available, Report: claims},
			sentence: "m1 is available and has no disk to deploy to: the agent has no driver for 1000:0000 and " +
				"1000:0001 and 1000:0002 and 997 more.",
			next: "put the driver into the ramdisk",
		},
		"a disk is there, whatever else has no driver": {
			m: inventory.Machine{
				State:     inventory.Available,
				LastProof: "inspect",
				Report:    &inventory.Report{PCI: megaraid.PCI, Disks: []inventory.Disk{{Name: "sda"}}},
			},
			sentence: "m1 is available, as it should be", next: "nothing to do",
		},
		"deployed, and cut off by a run that was cancelled": {
			m: inventory.Machine{
				State:       inventory.Deployed,
				Interrupted: &inventory.Interruption{Run: "d-2", At: noon, On: true},
			},
			second: 120,
			sentence: "m1 is deployed, and its system was cut off 2m0s ago: " +
				"the machine was switched off and on for d-2, which went no further. " +
				"The system has not called home since.",
			next: "look at its console: `pxectl console m1`",
		},
		"deployed, and cut off in the middle of a boot": {
			m: inventory.Machine{
				State:       inventory.Deployed,
				Interrupted: &inventory.Interruption{Run: "d-2", At: noon},
			},
			second: 120,
			sentence: "m1 is deployed, and its system was cut off 2m0s ago: " +
				"the machine was switched off (and not on again) for d-2",
			next: "`pxectl power on m1`",
		},
		"enrolled, and its BMC rejects the password": {
			m: inventory.Machine{
				State: inventory.Enrolled,
				BMC: inventory.BMC{
					Address: "192.0.2.7",
					Refused: true,
					Error:   "m1: power 192.0.2.7:623: user or password rejected",
				},
			},
			sentence: "m1 is enrolled and its agent has not called yet: " +
				"nothing was seen of it on the wire; and its BMC is in trouble: m1: power 192.0.2.7:623: " +
				"user or password rejected.",
			next: "set its right credentials with `pxectl machine edit m1 --bmc-user USER " +
				"--bmc-password-file FILE`, then `pxectl power status m1` asks it again; is it on",
		},
		"available, and its BMC rejects the password": {
			m: inventory.Machine{
				State: inventory.Available,
				BMC: inventory.BMC{
					Address: "192.0.2.7",
					Refused: true,
					Error:   "m1: power 192.0.2.7:623: user or password rejected",
				},
			},
			sentence: "m1 is available, but its BMC is in trouble: m1: power 192.0.2.7:623: " +
				"user or password rejected.",
			next: "set its right credentials with `pxectl machine edit m1",
		},
		"enrolled, and on a port that is not ours": {
			m: inventory.Machine{State: inventory.Enrolled},
			events: []inventory.Event{
				event(0, "dhcp", "DISCOVER", "type", "DISCOVER", "class", "bios-pxe", "interface", "eno2",
					"unconfigured", "yes"),
			},
			sentence: "m1 is enrolled and its agent has not called yet: its requests arrive on eno2",
			next:     "add eno2",
		},
		"its system just started": {
			m:      inventory.Machine{State: inventory.Deploying},
			d:      d(inventory.VerifyOS, inventory.Running, 0, 0),
			second: 10,
			sentence: "m1 was started from its disk 10s ago, and its system has not phoned home yet; " +
				"that takes a minute or more",
			next: "wait",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.m.Name = "m1"
			got := diagnose(facts{m: c.m, d: c.d}, c.events, noon.Add(time.Duration(c.second)*time.Second))
			if !strings.HasPrefix(got.Sentence, c.sentence) || !strings.HasPrefix(got.Next, c.next) {
				t.Errorf("diagnose() =\n%q,\nnext %q, want\n%q,\n%q", got.Sentence, got.Next, c.sentence,
					c.next)
			}
		})
	}
}

// The event that decided is in the evidence, even when many followed it.
func TestTheDecisiveEventIsEvidence(t *testing.T) {
	events := upTo(2, otherServer, uefiBoot[2])
	for i := range 40 {
		e := event(100+i, "bmc", "power is read: on")
		e.Data = nil
		events = append(events, e)
	}
	got := diagnose(facts{m: inventory.Machine{Name: "m1", State: inventory.Enrolled}}, events,
		noon.Add(time.Hour))
	if len(got.Evidence) != evidence || got.Evidence[0].Text != otherServer.Text {
		t.Errorf("evidence begins with %q and has %d events, want %q and %d", got.Evidence[0].Text,
			len(got.Evidence), otherServer.Text, evidence)
	}
}
