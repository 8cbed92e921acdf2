package inventory

import (
	"cmp"
	"fmt"
	"time"
)

// A MachineID identifies a machine for ever: "m-" and eight hex digits. Names can change.
type MachineID string

// A State is a machine's place in its life. States are words on disk and over the wire.
type State string

// The states of a machine.
const (
	Discovered State = "discovered" // an unknown machine network-booted and registered itself
	Enrolled   State = "enrolled"   // known or approved, never inspected
	Inspecting State = "inspecting" // the agent is reporting
	Available  State = "available"  // inspected; no OS wanted
	Deploying  State = "deploying"  // a deployment is running
	Deployed   State = "deployed"   // the OS proved that it runs
	Cleaning   State = "cleaning"   // released; its disks are being erased
	Rescue     State = "rescue"     // in the agent, for a person
	Failed     State = "failed"     // a step ran out of budget; Failure says which
)

// States lists every state in the order of a machine's life.
var States = []State{
	Discovered, Enrolled, Inspecting, Available, Deploying, Deployed, Cleaning, Rescue, Failed,
}

// A Machine is the record of one computer. Only the machine's worker writes State.
type Machine struct {
	ID    MachineID `json:"id"`
	Name  string    `json:"name"`
	State State     `json:"state"`
	// Unverified goes with Deployed: the machine was rebooted, and its system never phoned home.
	Unverified bool              `json:"unverified,omitempty"`
	MACs       []MAC             `json:"macs"`
	UUID       string            `json:"uuid,omitempty"`
	Adopted    MAC               `json:"adopted,omitempty"` // announced by its UUID alone: the MAC that said it first
	Labels     map[string]string `json:"labels,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	ChangedAt  time.Time         `json:"changed_at"` // of the last change of State

	BMC      BMC       `json:"bmc"`
	Power    Power     `json:"power"`
	RootDisk *DiskHint `json:"root_disk,omitempty"` // the operator's choice, kept between deployments
	// Disk is the disk of the last deployment: another one needs the operator's word. Holds is the deployment
	// that wrote to it, until it is erased.
	Disk        *DiskIdentity `json:"disk,omitempty"`
	Holds       DeploymentID  `json:"holds,omitempty"`
	Maintenance *Maintenance  `json:"maintenance,omitempty"`
	Report      *Report       `json:"report,omitempty"`
	ReportedAt  time.Time     `json:"reported_at,omitzero"`
	Hardware    *Hardware     `json:"hardware,omitempty"` // in lists, instead of Report; not stored
	Boot        *Boot         `json:"boot,omitempty"`
	// NoncesAfter is the last nonce of ended boots: pxectl switched the machine off.
	NoncesAfter Serial `json:"nonces_after,omitzero"`

	Deployment DeploymentID `json:"deployment,omitempty"` // the current or the last one
	// Image is the name of the image that Deployment writes or wrote, while the machine is being deployed or
	// deployed. The appliance fills it in for readers and does not store it.
	Image     string   `json:"image,omitempty"`
	Failure   *Failure `json:"failure,omitempty"`
	LastProof string   `json:"last_proof,omitempty"` // the event that ended the last waiting step
	// Interrupted stands until the system calls home, another is written, or an operator switches the machine.
	Interrupted *Interruption `json:"interrupted,omitempty"`
}

// An Interruption is what a run that ended before it touched the disk did to the machine's power: what ran on
// it was cut off.
type Interruption struct {
	Run DeploymentID `json:"run"`
	At  time.Time    `json:"at"`           // when the run ended
	On  bool         `json:"on,omitempty"` // the machine was switched on again
}

func (i Interruption) String() string {
	if i.On {
		return "switched off and on"
	}
	return "switched off (and not on again)"
}

// Boot is one network boot of a machine whose agent has registered. Its nonce was in the boot script, in the
// clear. The first agent that shows the nonce spends it and binds the boot to the key that its connection
// proved to hold. Whoever shows the nonce without that key is somebody else.
type Boot struct {
	Nonce        Serial    `json:"nonce"`
	BootID       string    `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Key          string    `json:"key"`     // hash of the agent's public key: see Caller
	MAC          MAC       `json:"mac"`
	IP           string    `json:"ip"`
	RegisteredAt time.Time `json:"registered_at"`
	Reported     bool      `json:"reported,omitempty"` // this agent's report is stored
}

// A Serial orders the nonces of an appliance without a clock: by the number of the appliance's start, and
// from 1 since then.
type Serial struct {
	Start uint32 `json:"start"`
	Count uint64 `json:"count"`
}

// Compare says which of two was issued first.
func (s Serial) Compare(t Serial) int {
	return cmp.Or(cmp.Compare(s.Start, t.Start), cmp.Compare(s.Count, t.Count))
}

func (s Serial) String() string { return fmt.Sprintf("%d-%d", s.Start, s.Count) }

// Power is the last observed power and the wanted one. It stands beside State and does not mix with it.
type Power struct {
	On         bool      `json:"on"`
	Known      bool      `json:"known"`
	ObservedAt time.Time `json:"observed_at,omitzero"`
	Wanted     string    `json:"wanted,omitempty"` // "on", "off" or ""
}

// BMC is the access to a machine's management controller. Empty user and password mean the appliance's
// defaults.
type BMC struct {
	// Address is an IP address, or IP:port when the port is not 623. A person or a rule has accepted it:
	// pxectl sends nothing to any other. No two machines have the same.
	Address    string `json:"address,omitempty"`
	User       string `json:"user,omitempty"`
	Password   Sealed `json:"password,omitempty"`
	Kg         Sealed `json:"kg,omitempty"`         // the BMC's own key, where it has one
	Discovered bool   `json:"discovered,omitempty"` // the agent found the address in-band
	// Proposed is an address that the agent reports and nobody has accepted.
	Proposed *BMCProposal `json:"proposed,omitempty"`
	// Declined is a reported address that an operator has replaced: it is not proposed again.
	Declined string `json:"declined,omitempty"`
	Error    string `json:"error,omitempty"`   // of the last command, "" when it went well
	Refused  bool   `json:"refused,omitempty"` // the BMC rejected user or password
}

// A BMCProposal is a machine's claim about the address of its BMC.
type BMCProposal struct {
	Address string    `json:"address"`        // an IP address
	At      time.Time `json:"at"`             // of the first report with this address
	From    string    `json:"from,omitempty"` // where the agent called from
}

// Sealed is a secret encrypted to the appliance's key file. Its plain text is never stored.
type Sealed []byte

// Maintenance keeps automation away from a machine.
type Maintenance struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Actor  string    `json:"actor"`
}

// Failure says which step gave up, why, and what to do about it.
type Failure struct {
	Step   string    `json:"step"`
	Reason string    `json:"reason"`
	Hint   string    `json:"hint,omitempty"`
	At     time.Time `json:"at"`
}
