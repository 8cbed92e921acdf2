package deploy

import (
	"testing"

	"github.com/pxectl/pxectl/inventory"
)

func TestNext(t *testing.T) {
	// in is a running deployment at a step that has begun.
	in := func(s inventory.Step, change func(*Facts)) Facts {
		f := Facts{State: inventory.Deploying, Deploying: true, Step: s, Began: true, Boots: 1}
		if change != nil {
			change(&f)
		}
		return f
	}
	for _, c := range []struct {
		name string
		f    Facts
		want Move
	}{
		{"a stranger waits for approval", Facts{State: inventory.Discovered}, Move{Verb: Wait}},
		{
			"a stranger's agent reports before anybody decides",
			Facts{State: inventory.Discovered, AgentHere: true},
			Move{Verb: Inspect},
		},
		{
			"a reported stranger waits",
			Facts{State: inventory.Discovered, AgentHere: true, Inspected: true},
			Move{Verb: Wait},
		},
		{
			"policy auto approves",
			Facts{State: inventory.Discovered, AutoApprove: true},
			Move{Verb: Enter, State: inventory.Enrolled},
		},
		{"enrolled without an agent waits", Facts{State: inventory.Enrolled}, Move{Verb: Wait}},
		{
			"enrolled, its agent calls",
			Facts{State: inventory.Enrolled, AgentHere: true},
			Move{Verb: Enter, State: inventory.Inspecting},
		},
		{
			"inspecting orders the report",
			Facts{State: inventory.Inspecting, AgentHere: true},
			Move{Verb: Inspect},
		},
		{
			"inspecting ends with the report",
			Facts{State: inventory.Inspecting, Inspected: true},
			Move{Verb: Enter, State: inventory.Available},
		},
		{
			"inspecting has a deadline",
			Facts{State: inventory.Inspecting, Overdue: true},
			Move{Verb: Fail, Why: "the agent registered and did not report in time"},
		},
		{
			"a late report makes good",
			Facts{State: inventory.Failed, Uninspected: true, Inspected: true},
			Move{Verb: Enter, State: inventory.Available},
		},
		{
			"another failure is not made good by a report",
			Facts{State: inventory.Failed, Inspected: true},
			Move{Verb: Wait},
		},
		{
			"a new boot of an available machine reports again",
			Facts{State: inventory.Available, AgentHere: true},
			Move{Verb: Inspect},
		},
		{"deployed is left alone", Facts{State: inventory.Deployed}, Move{Verb: Wait}},
		{
			"maintenance stops everything",
			Facts{State: inventory.Enrolled, AgentHere: true, Maintenance: true},
			Move{Verb: Wait},
		},
		{
			"maintenance stops a deployment",
			in(inventory.BootAgent, func(f *Facts) { f.Maintenance = true }),
			Move{Verb: Wait},
		},

		{
			"a deployment begins with validate",
			Facts{State: inventory.Deploying, Deploying: true, Step: inventory.Validate},
			Move{Verb: Begin, Step: inventory.Validate},
		},
		{"validate acts", in(inventory.Validate, nil), Move{Verb: Act, Step: inventory.Validate}},
		{
			"validate acts once", in(inventory.Validate, func(f *Facts) { f.Working = true }),
			Move{Verb: Wait, Step: inventory.Validate},
		},
		{
			"an error ends it", in(inventory.Validate, func(f *Facts) { f.Erred = true }),
			Move{Verb: Fail, Step: inventory.Validate},
		},
		{
			"a proof begins the next step", in(inventory.Validate, func(f *Facts) { f.Proved = true }),
			Move{Verb: Begin, Step: inventory.BootAgent},
		},
		{
			"a warm agent needs no boot",
			in(inventory.BootAgent, func(f *Facts) { f.AgentHere, f.Inspected = true, true }),
			Move{Verb: Prove, Step: inventory.BootAgent, Why: "the agent is here"},
		},
		{
			"an agent that was booted reports first",
			in(inventory.BootAgent, func(f *Facts) { f.AgentHere, f.Acted = true, true }),
			Move{Verb: Inspect, Step: inventory.BootAgent},
		},
		{
			"an agent that never reports is booted again",
			in(inventory.BootAgent, func(f *Facts) { f.AgentHere, f.Acted, f.Overdue = true, true, true }),
			Move{Verb: Begin, Step: inventory.BootAgent, Why: "its agent called and never reported"},
		},
		{
			"without an agent, boot it", in(inventory.BootAgent, nil),
			Move{Verb: Act, Step: inventory.BootAgent},
		},
		{
			"booted, wait for the call", in(inventory.BootAgent, func(f *Facts) { f.Acted = true }),
			Move{Verb: Wait, Step: inventory.BootAgent},
		},
		{
			"no call in time: boot again",
			in(inventory.BootAgent, func(f *Facts) { f.Acted, f.Overdue = true, true }),
			Move{Verb: Begin, Step: inventory.BootAgent, Why: "its agent never called"},
		},
		{
			"no call after the last boot: give up",
			in(inventory.BootAgent, func(f *Facts) {
				f.Acted, f.Overdue, f.Boots = true, true, inventory.MaxBoots
			}),
			Move{
				Verb: Fail,
				Step: inventory.BootAgent,
				Why:  "the machine was booted into the agent, and the agent never called",
			},
		},
		{
			"the agent writes",
			in(inventory.WriteImage, func(f *Facts) { f.AgentHere, f.Inspected = true, true }),
			Move{Verb: Order, Step: inventory.WriteImage},
		},
		{
			"an agent that did not prepare the disk reports first",
			in(inventory.WriteImage, func(f *Facts) { f.AgentHere = true }),
			Move{Verb: Begin, Step: inventory.BootAgent, Why: "another agent registered"},
		},
		{
			"agents that come one after another are a failure",
			in(inventory.PrepareDisk, func(f *Facts) { f.AgentHere, f.Boots = true, inventory.MaxBoots }),
			Move{
				Verb: Fail,
				Step: inventory.PrepareDisk,
				Why:  "the agent was started again and again in the middle",
			},
		},
		{
			"a short silence is waited out", in(inventory.WriteImage, nil),
			Move{Verb: Wait, Step: inventory.WriteImage},
		},
		{
			"a lost agent is booted again", in(inventory.WriteImage, func(f *Facts) { f.AgentLost = true }),
			Move{Verb: Begin, Step: inventory.BootAgent, Why: "its agent went silent"},
		},
		{
			"an agent lost too often is a failure",
			in(inventory.WriteImage, func(f *Facts) { f.AgentLost, f.Boots = true, inventory.MaxBoots }),
			Move{
				Verb: Fail,
				Step: inventory.WriteImage,
				Why:  "the agent went silent, and booting it again did not help",
			},
		},
		{
			"writing has a deadline, with an agent too",
			in(inventory.WriteImage, func(f *Facts) { f.AgentHere, f.Overdue = true, true }),
			Move{Verb: Fail, Step: inventory.WriteImage, Why: "the agent did not finish in time"},
		},
		{"boot the new system", in(inventory.BootOS, nil), Move{Verb: Act, Step: inventory.BootOS}},
		{
			"an early phone-home is a proof too",
			in(inventory.BootOS, func(f *Facts) { f.Working, f.OSProved = true, true }),
			Move{Verb: Finish, Step: inventory.BootOS},
		},
		{"wait for the phone-home", in(inventory.VerifyOS, nil), Move{Verb: Wait, Step: inventory.VerifyOS}},
		{
			"phoned home", in(inventory.VerifyOS, func(f *Facts) { f.OSProved = true }),
			Move{Verb: Finish, Step: inventory.VerifyOS},
		},
		{
			"no phone-home: judge by what is known",
			in(inventory.VerifyOS, func(f *Facts) { f.Overdue = true }),
			Move{Verb: Act, Step: inventory.VerifyOS},
		},
		{
			"a release boots the agent as a deployment does",
			in(inventory.Validate, func(f *Facts) { f.Erasing, f.Proved = true, true }),
			Move{Verb: Begin, Step: inventory.BootAgent},
		},
		{
			"and then erases", in(inventory.BootAgent, func(f *Facts) { f.Erasing, f.Proved = true, true }),
			Move{Verb: Begin, Step: inventory.EraseDisks},
		},
		{
			"the agent erases",
			in(inventory.EraseDisks, func(f *Facts) { f.Erasing, f.AgentHere = true, true }),
			Move{Verb: Order, Step: inventory.EraseDisks},
		},
		{
			"an agent lost while it erases is booted again",
			in(inventory.EraseDisks, func(f *Facts) { f.Erasing, f.AgentLost = true, true }),
			Move{Verb: Begin, Step: inventory.BootAgent, Why: "its agent went silent"},
		},
		{
			"erased", in(inventory.EraseDisks, func(f *Facts) { f.Erasing, f.Proved = true, true }),
			Move{Verb: Finish, Step: inventory.EraseDisks},
		},
		{
			"judged", in(inventory.VerifyOS, func(f *Facts) { f.Overdue, f.Proved = true, true }),
			Move{Verb: Finish, Step: inventory.VerifyOS},
		},
	} {
		if got := Next(c.f); got != c.want {
			t.Errorf("%s: Next(%+v) = %+v, want %+v", c.name, c.f, got, c.want)
		}
	}
}

func TestAfterWalksAllSteps(t *testing.T) {
	for _, c := range []struct {
		walk    []inventory.Step
		erasing bool
	}{{inventory.Steps, false}, {inventory.EraseSteps, true}} {
		for i, s := range c.walk[1:] {
			if got := after(c.walk[i], c.erasing); got != s {
				t.Errorf("after(%s, %v) = %s, want %s", c.walk[i], c.erasing, got, s)
			}
		}
	}
}
