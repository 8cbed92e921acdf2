package inventory

import "time"

// A DeploymentID names one run of writing an image to one machine.
type DeploymentID string

// A Step is one step of a deployment, in the order of Steps.
type Step string

// Steps in their order.
const (
	Validate    Step = "validate"     // image complete, disk chosen, BMC answers; nothing touched
	BootAgent   Step = "boot-agent"   // proof: the agent registered with this boot's nonce
	PrepareDisk Step = "prepare-disk" // proof: the agent's result
	WriteImage  Step = "write-image"  // proof: every chunk verified, then read back
	FinishDisk  Step = "finish-disk"  // proof: partitions counted after the kernel re-read them
	BootOS      Step = "boot-os"      // off, boot device disk, read back, on
	VerifyOS    Step = "verify-os"    // proof: the OS phoned home with the deployment's nonce
)

// EraseDisks is the last step of a release; proof: the agent's results, one for each disk.
const EraseDisks Step = "erase-disks"

// Steps are the steps of a deployment in order, EraseSteps those of a release.
var (
	Steps      = []Step{Validate, BootAgent, PrepareDisk, WriteImage, FinishDisk, BootOS, VerifyOS}
	EraseSteps = []Step{Validate, BootAgent, EraseDisks}
)

// A DeployRequest has the operator's options.
type DeployRequest struct {
	Image    string   `json:"image"` // name or id
	Hostname string   `json:"hostname,omitempty"`
	UserData []byte   `json:"user_data,omitempty"` // any bytes, in JSON as base64; sealed at rest
	SSHKeys  []string `json:"ssh_keys,omitempty"`
	Network  string   `json:"network,omitempty"` // cloud-init network-config, verbatim
	// AsIs says that another program than cloud-init reads user-data, network and keys, so that nobody checks
	// them by cloud-init's rules.
	AsIs bool      `json:"as_is,omitempty"`
	Disk *DiskHint `json:"disk,omitempty"`
	// Redeploy allows overwriting the system of a deployed machine.
	Redeploy bool `json:"redeploy,omitempty"`
	// Overwrite allows overwriting data on the disk that no deployment put there.
	Overwrite bool   `json:"overwrite,omitempty"`
	Mode      string `json:"mode,omitempty"`   // ModeAuto, ModeFull or ModeDelta
	Verify    string `json:"verify,omitempty"` // VerifyReadBack or VerifyHash
}

// Touched says whether the deployment has begun to change the machine's disk.
func (d Deployment) Touched() bool { return d.Step != Validate && d.Step != BootAgent }

// MaxBoots bounds how often one deployment boots a machine into the agent.
const MaxBoots = 3

// Outcome of a deployment.
type Outcome string

// The outcomes of a deployment, and Running.
const (
	Running   Outcome = "running"
	Succeeded Outcome = "succeeded"
	FailedOut Outcome = "failed"
	Cancelled Outcome = "cancelled"
)

// A Deployment is one run of writing an image to one machine, or, with Erase, of erasing its disks.
type Deployment struct {
	ID      DeploymentID `json:"id"`
	Machine MachineID    `json:"machine"`
	Actor   string       `json:"actor"`
	// From is the machine's state before, and Previous its deployment then. A cancel returns to them while
	// the disk is untouched.
	From      State        `json:"from"`
	Previous  DeploymentID `json:"previous,omitempty"`
	RetryOf   DeploymentID `json:"retry_of,omitempty"` // the failed deployment that it repeats
	ImageID   string       `json:"image_id"`
	ImageName string       `json:"image_name"`
	Hostname  string       `json:"hostname"`
	// Secret holds user-data, keys and network, sealed, which only the machine may see. A failed deployment
	// keeps it for a while, for a retry.
	Secret    Sealed    `json:"secret,omitempty"`
	DiskHint  *DiskHint `json:"disk_hint,omitempty"`
	Overwrite bool      `json:"overwrite,omitempty"`
	Mode      string    `json:"mode,omitempty"`
	Verify    string    `json:"verify,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Outcome   Outcome   `json:"outcome"`
	Failure   *Failure  `json:"failure,omitempty"`

	Erase   *EraseRequest  `json:"erase,omitempty"`
	Targets []DiskIdentity `json:"targets,omitempty"` // of an erase
	Erased  []Erasure      `json:"erased,omitempty"`  // those of Targets that are erased

	Step    Step          `json:"step"` // the current one
	Disk    *DiskIdentity `json:"disk,omitempty"`
	History []StepRecord  `json:"history"`
	// PhonedHomeAt is when the deployed system showed the deployment's nonce.
	PhonedHomeAt time.Time `json:"phoned_home_at,omitzero"`
	Written      *Written  `json:"written,omitempty"`
	Finished     *Finished `json:"finished,omitempty"`
}

// A StepRecord is one step of one deployment, from its beginning to its proof.
type StepRecord struct {
	Step     Step      `json:"step"`
	Attempt  int       `json:"attempt"`
	BeganAt  time.Time `json:"began_at"`
	Deadline time.Time `json:"deadline"`          // counted from BeganAt, so a restart does not move it
	ActedAt  time.Time `json:"acted_at,omitzero"` // our own part is done; the proof is still to come
	EndedAt  time.Time `json:"ended_at,omitzero"`
	Proof    string    `json:"proof,omitempty"`
	Error    string    `json:"error,omitempty"`
	GivenUp  bool      `json:"given_up,omitempty"` // Error did not fail the run, which went on or was cancelled
}

// Runs says whether a deployment or a release of the machine is running. last is its current or last one, or
// nil.
func (m Machine) Runs(last *Deployment) bool {
	return (m.State == Deploying || m.State == Cleaning) && last != nil && last.Outcome == Running
}

// Intact says that a deployed system is on the machine's disk: it is deployed, or a later deployment of it
// failed before it touched anything. last is its current or last deployment, or nil.
func (m Machine) Intact(last *Deployment) bool {
	return m.State == Deployed || m.State == Failed && last != nil && last.From == Deployed && !last.Touched()
}

// Record is the record of the current step, or nil before its beginning.
func (d *Deployment) Record() *StepRecord {
	if len(d.History) == 0 {
		return nil
	}
	if r := &d.History[len(d.History)-1]; r.Step == d.Step {
		return r
	}
	return nil
}

// GiveUp ends the last record, if it is open, without a proof and without failing the run, and returns it;
// nil when none is open.
func (d *Deployment) GiveUp(at time.Time, why string) *StepRecord {
	if len(d.History) == 0 {
		return nil
	}
	r := &d.History[len(d.History)-1]
	if !r.EndedAt.IsZero() {
		return nil
	}
	r.EndedAt, r.Error, r.GivenUp = at, why, true
	return r
}
