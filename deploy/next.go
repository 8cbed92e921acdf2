package deploy

import "github.com/pxectl/pxectl/inventory"

// Facts is all that decides what happens to a machine next. Every field is read from the store, or
// is one that a restart finds out again by itself (AgentHere, AgentLost, Working).
type Facts struct {
	State       inventory.State
	Maintenance bool
	AutoApprove bool // discovery.policy: auto
	AgentHere   bool // an agent of this boot registered, its nonce is alive, and it keeps calling
	AgentLost   bool // no agent of this boot registered, or it is silent for longer than any call takes
	Inspected   bool // that agent's report is stored
	Uninspected bool // the machine failed because no report came
	Overdue     bool // what the machine waits for is past its deadline

	Deploying bool // a deployment or a release is running; the rest is about it
	Erasing   bool // it is a release
	Step      inventory.Step
	Began     bool // the step has a record
	Working   bool // our own part of the step is in flight
	Acted     bool // our own part is done
	Proved    bool // the step's proof arrived
	Erred     bool // the step ended with an error
	OSProved  bool // the new system phoned home
	Boots     int  // how many times this deployment booted the agent
}

// A Verb says what a Move does.
type Verb string

// The verbs of a Move.
const (
	Wait    Verb = "wait"    // for a proof, a person, or a deadline
	Enter   Verb = "enter"   // enter Move.State
	Inspect Verb = "inspect" // order the agent to report
	Begin   Verb = "begin"   // open the record of Move.Step; its deadline counts from now
	Act     Verb = "act"     // do our own part of Move.Step
	Order   Verb = "order"   // let the agent do its part of Move.Step
	Prove   Verb = "prove"   // the facts are the proof of Move.Step
	Fail    Verb = "fail"    // the step failed, or its time is over
	Finish  Verb = "finish"  // the deployment succeeded
)

// A Move is the next thing to do for a machine.
type Move struct {
	Verb  Verb
	State inventory.State
	Step  inventory.Step
	Why   string // with Fail and Prove; with Begin, why the step before was given up
}

// Next decides what happens next to a machine. It reads only facts, so every row of the table in next_test.go
// is a test.
func Next(f Facts) Move {
	if f.Maintenance {
		return Move{Verb: Wait}
	}
	if f.Deploying {
		return nextStep(f)
	}
	switch f.State {
	case inventory.Discovered:
		if f.AutoApprove {
			return Move{Verb: Enter, State: inventory.Enrolled}
		}
	case inventory.Enrolled:
		if f.AgentHere {
			return Move{Verb: Enter, State: inventory.Inspecting}
		}
	case inventory.Inspecting:
		switch {
		case f.Inspected:
			return Move{Verb: Enter, State: inventory.Available}
		case f.Overdue:
			return Move{Verb: Fail, Why: "the agent registered and did not report in time"}
		}
	case inventory.Failed:
		if f.Uninspected && f.Inspected {
			return Move{Verb: Enter, State: inventory.Available}
		}
	}
	// In any state, an agent that is here and has not reported is told to: a report is never stale.
	if f.AgentHere && !f.Inspected {
		return Move{Verb: Inspect}
	}
	return Move{Verb: Wait}
}

func nextStep(f Facts) Move {
	step := Move{Step: f.Step}
	do := func(v Verb, why string) Move { step.Verb, step.Why = v, why; return step }
	switch {
	case f.OSProved && (f.Step == inventory.BootOS || f.Step == inventory.VerifyOS):
		// The system can phone home before the BMC's readings have settled.
		return do(Finish, "")
	case !f.Began:
		return do(Begin, "")
	case f.Erred:
		return do(Fail, "")
	case f.Proved && (f.Step == inventory.VerifyOS || f.Step == inventory.EraseDisks):
		return do(Finish, "")
	case f.Proved:
		return Move{Verb: Begin, Step: after(f.Step, f.Erasing)}
	}
	switch f.Step {
	case inventory.Validate:
		switch {
		case f.Overdue:
			return do(Fail, "checking what the deployment needs took too long")
		case f.Working:
			return do(Wait, "")
		}
		return do(Act, "")
	case inventory.BootAgent:
		switch {
		case f.AgentHere && f.Inspected:
			return do(Prove, "the agent is here")
		case f.AgentHere && !f.Overdue:
			return do(Inspect, "") // the disks may have changed since the last inspection
		case f.Overdue && f.Boots >= inventory.MaxBoots:
			return do(Fail, "the machine was booted into the agent, and the agent never called")
		case f.Overdue && f.AgentHere:
			return do(Begin, "its agent called and never reported")
		case f.Overdue:
			return do(Begin, "its agent never called") // another attempt, with its own deadline
		case f.Working, f.Acted:
			return do(Wait, "")
		}
		return do(Act, "")
	case inventory.PrepareDisk, inventory.WriteImage, inventory.FinishDisk, inventory.EraseDisks:
		switch {
		case f.Overdue:
			return do(Fail, "the agent did not finish in time")
		case f.AgentHere && !f.Inspected && !f.Erasing && f.Boots >= inventory.MaxBoots:
			return do(Fail, "the agent was started again and again in the middle")
		case f.AgentHere && !f.Inspected && !f.Erasing:
			// The disk was chosen from another agent's report, and what that did is its word alone.
			return Move{Verb: Begin, Step: inventory.BootAgent, Why: "another agent registered"}
		case f.AgentHere:
			return do(Order, "")
		case f.AgentLost && f.Boots >= inventory.MaxBoots:
			return do(Fail, "the agent went silent, and booting it again did not help")
		case f.AgentLost:
			return Move{Verb: Begin, Step: inventory.BootAgent, Why: "its agent went silent"}
		}
		return do(Wait, "")
	case inventory.BootOS:
		switch {
		case f.Overdue:
			return do(Fail, "the machine could not be started from its disk in time")
		case f.Working:
			return do(Wait, "")
		}
		return do(Act, "")
	case inventory.VerifyOS:
		if f.Overdue {
			return do(Act, "") // look at what is known without a phone-home
		}
	}
	return do(Wait, "")
}

// after is the step that follows s in a deployment, or in a release.
func after(s inventory.Step, erasing bool) inventory.Step {
	steps := inventory.Steps
	if erasing {
		steps = inventory.EraseSteps
	}
	for i, step := range steps[:len(steps)-1] {
		if step == s {
			return steps[i+1]
		}
	}
	panic("no step after " + string(s))
}
