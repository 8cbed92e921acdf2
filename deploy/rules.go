package deploy

import (
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

// Shown is a machine as those who ask see it: with the image that its current or last run has put on it.
func Shown(m inventory.Machine, last *inventory.Deployment) inventory.Machine {
	if last != nil && (m.State == inventory.Deployed || m.State == inventory.Deploying) {
		m.Image = last.ImageName
	}
	return m
}

// MayDeploy says why a machine cannot be deployed now; nil when it can. last is its current or last run, if
// it had one.
func MayDeploy(m inventory.Machine, last *inventory.Deployment, r inventory.DeployRequest) error {
	if err := checkRequest(r); err != nil {
		return err
	}
	return deployable(&snapshot{m: m, d: last}, r)
}

// MayRelease says why a machine cannot be released now.
func MayRelease(m inventory.Machine, last *inventory.Deployment) error {
	return erasable(&snapshot{m: m, d: last}, "release", releasedFrom)
}

// MayClean says why a machine cannot be cleaned now.
func MayClean(m inventory.Machine, last *inventory.Deployment) error {
	return erasable(&snapshot{m: m, d: last}, "clean", cleanedFrom)
}

// Erases are the disks that a release of a machine, or its cleaning, erases: all that a deployment could have
// written to without being told, and the one that it was told.
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

// MayPower says why a machine's BMC cannot be asked; nil when its address is accepted.
func MayPower(m inventory.Machine) error {
	switch {
	case m.BMC.Address != "":
		return nil
	case m.BMC.Proposed != nil:
		return &inventory.Problem{Code: inventory.CodeBMC, Detail: m.Name + ": " + diagnose.UnacceptedBMC(m), Hint: "if that is right: `" + diagnose.AcceptCommand(m) + "`"}
	}
	return &inventory.Problem{
		Code: inventory.CodeBMC, Detail: m.Name + ": no BMC address is known",
		Hint: "set it with `pxectl machine edit " + m.Name + " --bmc IP`, or let the agent find it in-band",
	}
}

// MayRetry says why a deployment cannot be retried now. last is the machine's.
func MayRetry(m inventory.Machine, last *inventory.Deployment, d inventory.Deployment) error {
	return retryable(&snapshot{m: m, d: last}, d)
}
