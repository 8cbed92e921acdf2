package deploy

import (
	"fmt"

	"github.com/pxectl/pxectl/inventory"
)

// A snapshot is a machine and its current or last deployment, as stored, and the last command to its BMC. It
// is never changed, only replaced.
type snapshot struct {
	m       inventory.Machine
	d       *inventory.Deployment
	command *command // an operator's last one; nil before the first
}

// running says whether a deployment or a release is under way.
func (s *snapshot) running() bool {
	return s.m.Runs(s.d)
}

// shown returns the machine as the API shows it: with the image of its current or last run.
func (s *snapshot) shown() inventory.Machine {
	m := s.m
	if s.d != nil && (m.State == inventory.Deployed || m.State == inventory.Deploying) {
		m.Image = s.d.ImageName
	}
	return m
}

// doing is what is under way, in words.
func (s *snapshot) doing() string {
	if s.d.Erase != nil {
		return "being erased"
	}
	return "being deployed"
}

// intact says that a deployed system is on the machine's disk.
func (s *snapshot) intact() bool { return s.m.Intact(s.d) }

// before is the deployment that a new one goes back to when it is cancelled: the one whose system the machine
// runs, or the last.
func (s *snapshot) before() inventory.DeploymentID {
	if s.m.State == inventory.Failed && s.intact() {
		return s.d.Previous
	}
	return s.m.Deployment
}

// record is the record of the current step of a running deployment, or nil.
func (s *snapshot) record() *inventory.StepRecord {
	if !s.running() {
		return nil
	}
	return s.d.Record()
}

// cannot returns the error for a request that is not possible now. why goes on after the machine's name.
func (s *snapshot) cannot(why, hint string) error {
	return &inventory.Problem{Code: inventory.CodeConflict, Detail: s.m.Name + " " + why, Hint: hint}
}

// free says why nothing new can begin on a machine; nil when it can.
func (s *snapshot) free() error {
	switch {
	case s.running():
		return s.cannot(fmt.Sprintf("is %s already (%s, at %s)", s.doing(), s.d.ID, s.d.Step),
			"wait for it, or end it with `pxectl deployment cancel "+string(s.d.ID)+"`")
	case s.command.underWay():
		return s.commanded()
	case s.m.Maintenance != nil:
		return s.cannot("is in maintenance: "+s.m.Maintenance.Reason,
			"end it with `pxectl machine edit "+s.m.Name+" --no-maintenance`")
	}
	return nil
}

// commanded returns the error for a request that has to wait for a command to the machine's BMC.
func (s *snapshot) commanded() error {
	return s.cannot("waits for its BMC ("+s.command.String()+")",
		"wait until that has ended, or end it where it was given")
}

// leaves says why an operator cannot use a part of the machine ("its power"): a deployment, a release or
// another operator uses it.
func (s *snapshot) leaves(what string) error {
	switch {
	case s.command.underWay():
		return s.commanded()
	case !s.running():
		return nil
	}
	return s.cannot(fmt.Sprintf("is %s (%s, at %s), and %s with it", s.doing(), s.d.ID, s.d.Step, what),
		"end it with `pxectl deployment cancel "+string(s.d.ID)+"` first")
}

// deployable says why a machine cannot be deployed now, and what to do about it.
func deployable(s *snapshot, r inventory.DeployRequest) error {
	if err := s.free(); err != nil {
		return err
	}
	switch no := s.cannot; {
	case s.m.State == inventory.Discovered:
		return no("is not approved", s.towards())
	case s.m.Report == nil:
		return no("was never inspected, so its disks are not known",
			"boot it from the network once; `pxectl machine show "+s.m.Name+"` shows when it has reported")
	case s.intact() && !r.Redeploy:
		return no("has a deployed system; another deployment overwrites its system", "say so with --redeploy")
	case s.m.State != inventory.Available && s.m.State != inventory.Deployed && s.m.State != inventory.Failed:
		return no("is "+string(s.m.State), s.towards())
	}
	return nil
}

// towards returns the next move on the way to available.
func (s *snapshot) towards() string {
	switch s.m.State {
	case inventory.Discovered:
		return "approve it with `pxectl machine approve " + s.m.Name + "`"
	case inventory.Enrolled:
		return "boot it from the network, so that its agent reports; `pxectl why " + s.m.Name +
			"` says how far it came"
	}
	return "wait until it is available"
}
