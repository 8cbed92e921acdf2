package deploy

import (
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

// A Wish is what an operator asks of a machine. One field is set.
type Wish struct {
	Deploy  *inventory.DeployRequest
	Retry   *inventory.Deployment // start that one again
	Release bool
	Clean   bool
	BMC     bool // ask its BMC
}

// Refused says why the machine cannot do that now, with the next move; nil when it can. last is its current
// or last run, if it had one.
func (w Wish) Refused(m inventory.Machine, last *inventory.Deployment) error {
	return w.refused(&snapshot{m: m, d: last})
}

func (w Wish) refused(s *snapshot) error {
	switch {
	case w.Deploy != nil:
		if err := checkRequest(*w.Deploy); err != nil {
			return err
		}
		return deployable(s, *w.Deploy)
	case w.Retry != nil:
		return retryable(s, *w.Retry)
	case w.Release:
		return erasable(s, "release", inventory.Deployed, inventory.Failed)
	case w.Clean:
		return erasable(s, "clean", inventory.Available)
	case w.BMC:
		return askable(s.m)
	}
	return nil
}

// askable returns why a machine's BMC cannot be used; nil when its address is accepted.
func askable(m inventory.Machine) error {
	switch {
	case m.BMC.Address != "":
		return nil
	case m.BMC.Proposed != nil:
		return &inventory.Problem{
			Code:   inventory.CodeBMC,
			Detail: m.Name + ": " + diagnose.UnacceptedBMC(m),
			Hint:   "if that is right: `" + diagnose.AcceptCommand(m) + "`",
		}
	}
	return &inventory.Problem{
		Code: inventory.CodeBMC, Detail: m.Name + ": no BMC address is known",
		Hint: "set it with `pxectl machine edit " + m.Name + " --bmc IP`, or let the agent find it in-band",
	}
}

// Erases returns the disks that a release or a cleaning of a machine erases: all that a deployment could have
// chosen by itself, and the one that an operator named for the last deployment. The machine must have a
// report.
func Erases(m inventory.Machine) []inventory.Disk {
	disks := m.Report.Disks
	targets := inventory.Candidates(disks)
	if m.Disk != nil {
		for _, d := range m.Disk.Find(disks) {
			if d.Special() != "" && d.Unfit() == "" {
				targets = append(targets, d)
			}
		}
	}
	return targets
}
